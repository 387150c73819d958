"""R3, the main table: θ* against every baseline at equal tokens, five seeds, 1M and 5M parameters.

Runs all of studies/study.yaml (search, confirmation, comparison) and keeps the comparison without the
per-seed values of single tasks. With --base only the first rung is trained (12 selectors x 5 seeds at 1M).
"""

import time

from common import HERE, comparison_facts, parser, save

from quadmix.pipeline.run import run
from quadmix.recipe import load_recipe


def main() -> None:
    options = parser(str(__doc__))
    options.add_argument("--base", action="store_true", help="the first rung alone")
    args = options.parse_args()
    overrides = ["run.accept_unconfirmed=true", *args.overrides]
    if args.base:
        overrides.append("evaluate.ladder=[]")
    started = time.monotonic()
    result = run(load_recipe(str(HERE / "study.yaml"), overrides))
    seconds = round(time.monotonic() - started)
    save(
        "r3_base" if args.base else "r3_main",
        {"seconds_of_this_call": seconds, **comparison_facts(result)},
        run=result,
    )


if __name__ == "__main__":
    main()
