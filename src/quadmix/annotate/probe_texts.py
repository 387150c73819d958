"""The texts of the orientation guard (`probes.py`): written for this purpose, no corpus holds them.

Each pair is plainly ordered for any notion of quality of pretraining text. The good text is the longer one in
half of the pairs, so that neither length nor brevity ranks them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pair:
    """A good and a bad text."""

    name: str
    good: str
    bad: str


PAIRS = (
    Pair(
        "prose against spam",
        "Sleep is not a pause in the work of the brain but a part of it. While we lie still, "
        "memories of the day are replayed and sorted, and what matters is moved from short-lived "
        "stores into lasting ones. People who are kept awake after learning a list of words "
        "remember fewer of them the next day, even when they have been allowed to recover in "
        "between. This is why a student who reads until four in the morning often knows less at "
        "nine than one who went to bed at midnight.",
        "AMAZING offer!!! Buy cheap pills online NOW, no prescription, 100% guaranteed!!! Click "
        "here >>> best price best price best price. Lose 30 pounds in 7 days $$$ FREE shipping $$$ "
        "Act now, only 3 left!!! Click here click here click here www.best-pills-4u.example",
    ),
    Pair(
        "explanation against navigation",
        "A lever makes a heavy load easier to lift because force and distance can be traded. If "
        "the handle is three times as far from the pivot as the load, the hand has to push with "
        "only a third of the weight, but it must travel three times as far. Nothing is gained for "
        "free: the work, which is force times distance, stays the same on both sides.",
        "\n".join(
            ["Home", "About us", "Products", "Log in", "Sign up", "Cart (0)", "Contact", "FAQ", "Sitemap"] * 5
            + ["Next >>", "Terms of use", "Privacy policy", "All rights reserved"]
        ),
    ),
    Pair(
        "article against filler text",
        "The bridge was finished in the autumn of 1883, two years late and at nearly twice the "
        "price that had been promised. The town council had wanted stone; the engineer insisted on "
        "iron, because the bed of the river was too soft to bear the weight of piers. In the first "
        "winter the ice carried away the scaffolding, and the work had to begin again. When the "
        "first train finally crossed, the mayor stood in the driver's cab, although, as the "
        "newspaper remarked, with his eyes firmly shut. The bridge carried trains until 1961 and "
        "serves cyclists today.",
        "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt "
        "ut labore. Lorem ipsum dolor sit amet, consectetur adipiscing elit. Lorem ipsum dolor sit "
        "amet. Ut enim ad minim veniam, quis nostrud exercitation. Lorem ipsum dolor sit amet, "
        "consectetur adipiscing elit.",
    ),
    Pair(
        "commented code against minified code",
        "# The median of a list is its middle value once the values are sorted.\n"
        "# With an even number of values there are two in the middle, and we take their mean.\n"
        "def median(values):\n"
        "    ordered = sorted(values)\n"
        "    middle = len(ordered) // 2\n"
        "    if len(ordered) % 2 == 1:\n"
        "        return ordered[middle]\n"
        "    return (ordered[middle - 1] + ordered[middle]) / 2\n",
        "!function(e,t){var n={};function r(o){if(n[o])return n[o].exports;var "
        "i=n[o]={i:o,l:!1,exports:{}};return "
        "e[o].call(i.exports,i,i.exports,r),i.l=!0,i.exports}r.m=e,r.c=n,r.d=function(e,t,n){r.o("
        "e,t)||Object.defineProperty(e,t,{enumerable:!0,get:n})},r.r=function(e){},r.t=function(e"
        ",t){if(1&t&&(e=r(e)),8&t)return e;var n=Object.create(null);return "
        "n}}([function(e,t){e.exports=n(1)},function(e,t){}]);",
    ),
    Pair(
        "recipe against keyword stuffing",
        "Soak the chickpeas overnight in plenty of cold water. The next day drain them, cover them "
        "with fresh water and simmer them for an hour, until one can be crushed between two "
        "fingers. Keep a cup of the liquid. Blend the warm chickpeas with lemon juice, garlic and "
        "sesame paste, and add the liquid spoon by spoon until the cream is as soft as you like "
        "it. Salt comes last, because the paste is already salty. Serve it with olive oil and "
        "bread, on the same day if you can.",
        "hummus recipe best hummus recipe easy hummus recipe hummus recipe online cheap hummus "
        "hummus near me hummus recipe 2019 hummus recipe 2020 hummus recipe 2021 best easy hummus "
        "buy hummus hummus hummus delivery hummus coupon hummus discount hummus recipe free",
    ),
    Pair(
        "history against a cookie notice",
        "Paper reached Europe slowly. It had been made in China for a thousand years before mills "
        "in Spain and Italy began to beat old linen into pulp, and for a long time notaries "
        "distrusted it, since it tore and rotted where parchment did not. Printing decided the "
        "matter: no herd could have supplied enough skins for the presses.",
        "We use cookies. By using this website you accept our cookie policy and privacy policy. "
        "Accept all cookies | Reject | Manage settings. Strictly necessary cookies: always active. "
        "Functional cookies: off. Marketing cookies: off. We and our 842 partners store and access "
        "information on your device. You can withdraw your consent at any time. Accept all "
        "cookies. Save settings. Please enable javascript. Sign up to our newsletter. Log in to "
        "continue. Terms of use. All rights reserved.",
    ),
    Pair(
        "worked example against broken encoding",
        "Suppose a town of 8,000 people grows by five percent a year. After one year it has 8,400, "
        "after two years 8,820, because the second year's growth is taken on the larger number. To "
        "find when it has doubled we look for the number of years after which 1.05 multiplied by "
        "itself reaches 2. Logarithms give 14.2 years, and the rule of thumb that divides 70 by "
        "the rate gives 14, which is close enough for most purposes.",
        "Ã¢â‚¬Å“ ï¿½ï¿½ Ãƒâ€šÃ‚Â 3f 9a Ã¯Â¿Â½ \\x00\\x1b ##@@ %%PDF-1.4 obj endobj <</Type/XRef>> "
        "ï¿½ï¿½ï¿½ Ã¢â‚¬â„¢ Ãƒâ€šÃ‚Â  stream xÃšÂ­ endstream 0000000015 00000 n 0000000074 65535 f "
        "ÃƒÂ©ÃƒÂ¨ Ã¯Â¿Â½Ã¯Â¿Â½",
    ),
    Pair(
        "story against a repeated line",
        "The old man kept his bees behind the chapel, where the wall held the warmth of the "
        "afternoon. He spoke to them when somebody died, as his mother had done, and he was not "
        "ashamed of it. When the schoolteacher asked whether he believed that they understood, he "
        "thought for a while and said that it was he who needed to hear it spoken aloud.",
        "\n".join(["This video is unavailable. Please try again later."] * 14),
    ),
    Pair(
        "report against clickbait",
        "The harbour authority will deepen the channel by two metres next year, so that larger "
        "ships can enter at low tide. The work is expected to take eleven months and to cost about "
        "forty million, half of it paid by the region. Fishermen had objected that dredging would "
        "drive away the sole, and the plan was changed in response: no work will be done between "
        "February and May, when the fish spawn. The council approved the plan by nine votes to "
        "four. A study of the effects on the salt marsh is due in June and will be made public.",
        "You won't BELIEVE what happened next!!! 17 celebrities who look TERRIBLE without makeup "
        "(number 9 will shock you) ... Doctors HATE this one weird trick ... She opened the door "
        "and THEN ... Share! Like! Tag a friend! #viral #wow #omg",
    ),
    Pair(
        "answer against empty replies",
        "The error means that the file was opened twice. The first handle still holds the lock "
        "when the second one asks for it. Close the first one before you open the next, or use a "
        "`with` block, which closes it even if something fails in between. That also explains why "
        "it works after a restart: the lock goes when the process ends.",
        "\n".join(
            [
                "+1",
                "bump",
                "same here",
                "thx!!!",
                "any news?",
                "lol",
                "first",
                "me too",
                "following",
                "^ this",
            ]
            * 6
        ),
    ),
    Pair(
        "biography against table debris",
        "She was born in 1821 as the third daughter of a clockmaker, and learned to read from his "
        "catalogues. At nineteen she left for the capital with a letter of recommendation that "
        "nobody wished to read, and worked as a governess until a publisher accepted her "
        "translations. They sold well, and for ten years hardly any foreign novel appeared in the "
        "language that had not passed through her hands. Her own book, on the schooling of girls, "
        "was printed only after her death. It is still read today.",
        "| 12 | 4.5 | - | n/a | 0 | 0 | 17 |\n"
        "| 13 | 4.7 | - | n/a | 0 | 1 | 18 |\n"
        "| 14 | - | - | n/a | 3 | 0 | 22 |\n"
        "| 15 | 5.1 | x | n/a | 0 | 0 | - |\n"
        "| 16 | 5.5 | - | n/a | 0 | 0 | 31 |\n"
        "| 17 | - | - | n/a |",
    ),
    Pair(
        "instructions against spun text",
        "To bleed a radiator, first turn the heating off and wait until it has cooled. Hold a "
        "cloth under the valve at the top and open it a quarter turn with the key. Air will hiss "
        "out; as soon as water follows, close the valve. Check the pressure of the boiler "
        "afterwards, because it falls a little each time, and top it up if it is low.",
        "To hemorrhage a radiator, initial twist the heating system away and hold until finally it "
        "own cooled. Grip a fabric beneath the device on the pinnacle also available it a one "
        "fourth convert using the essential. Atmosphere is going to hiss outside; the moment water "
        "practices, near the control device. Examine pressure the furnace later on, due to the "
        "fact drops a small every period, also top rated it upward in case reduced. Radiator "
        "hemorrhage best ideas radiator good home heating concepts also much far more helpful "
        "hints you are able to uncover on our web site regarding heating system radiators.",
    ),
    Pair(
        "abstract against product listings",
        "We asked whether birds that nest near roads sing at a higher pitch because they learn to, "
        "or because low-voiced birds leave. Over four breeding seasons we recorded 212 marked "
        "males at twelve sites and followed those that moved. Males raised pitch by 140 hertz on "
        "average within three weeks of moving to a noisy site, and lowered it again when traffic "
        "was stopped for repairs. Few birds left. We conclude that adjustment by individuals, not "
        "sorting, accounts for most of the difference.",
        "Men's Running Shoes Size 9 - $49.99 (was $99.99) ADD TO CART ★★★★☆ (1,204)\n"
        "Women's Running Shoes Size 7 - $39.99 ADD TO CART ★★★☆☆ (88)\n"
        "Kids Shoes - SALE - ADD TO CART\n"
        "Free returns! Sort by: price | popularity | newest",
    ),
    Pair(
        "essay against scanning errors",
        "It is a mistake to think that a short text is easier to write than a long one. In a long "
        "text a weak sentence is carried along by its neighbours; in a short one it stands alone "
        "and is seen. The writer who cuts a page by half must decide what it was really about, and "
        "often finds that he did not know.",
        "lt is a rnistake t0 thlnk tbat a sh0rt t e x t is eas1er +o wr|te than a I0ng 0ne. ln a l "
        "o n g tcxt a vveak sen- tence ls carr1ed al0ng bv i1s ne1gh- b0urs ; in a sbort 0nc i~ "
        "s~ands al0ne & 1s seeu. Tbc wr1tcr wh0 cu+s a p4ge by balf rnust dec1de wh4t 1t w4s "
        "rea11y ab0ut . 12 3 . . - ' , ~ 0f ten f1nds tbat be d1d n0t kn0w ; ; : ' ' . 47 i l I 1 "
        "| ~ ~ tbe wri tcr , , . cn d o f p a g c 4 7 . . . . . .",
    ),
    Pair(
        "geography against link lists",
        "The delta is young. Where the river meets the sea it drops the sand it has carried for "
        "two thousand kilometres, builds a bar, splits around it and begins again, so that the "
        "coast advances by the length of a football field in a century. Villages that were ports "
        "are now surrounded by fields of rice. Since the dams were built upstream less sand "
        "arrives, and for the first time the sea is winning: the outermost island has lost a third "
        "of its area since 1970, and its lighthouse stands in the water.",
        "January 2012 (4) | February 2012 (11) | March 2012 (2) | April 2012 (9) | May 2012 (7) | "
        "June 2012 (1)\n"
        "Tags: misc (12), photos (7), other (3), untagged (41)\n"
        "Older posts | Newer posts | Permalink | Reply",
    ),
    Pair(
        "lesson against a log file",
        'A word such as "bank" has several meanings, and yet we hardly ever notice. The words '
        "around it decide at once: by the river we think of grass, at the counter of money. Only "
        "jokes and puzzles make us see that there was something to decide.",
        "\n".join(
            f"2021-03-0{d} 00:{m:02d}:17 ERROR [worker-{d}] 0x7f{m:02d}a{d}c timeout=30 "
            f"retry={d} code=504 {{}}"
            for d in range(1, 4)
            for m in (3, 17, 41)
        ),
    ),
)
