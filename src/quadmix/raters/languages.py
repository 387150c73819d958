"""Names of languages for people and models: eng and en are English.

In: a code (ISO 639-1 or 639-3, with or without script and region). Out: the English name, or the code itself
where the table does not have it.
"""

_NAMES = {
    "Afrikaans": "af afr", "Albanian": "sq sqi", "Amharic": "am amh", "Arabic": "ar ara arb",
    "Armenian": "hy hye", "Assamese": "as asm", "Azerbaijani": "az aze azj", "Basque": "eu eus",
    "Belarusian": "be bel", "Bengali": "bn ben", "Bosnian": "bs bos", "Bulgarian": "bg bul",
    "Burmese": "my mya", "Cantonese": "yue", "Catalan": "ca cat", "Cebuano": "ceb",
    "Chinese": "zh zho cmn", "Croatian": "hr hrv", "Czech": "cs ces", "Danish": "da dan", "Dari": "prs",
    "Dutch": "nl nld", "Egyptian Arabic": "arz", "English": "en eng", "Esperanto": "eo epo",
    "Estonian": "et est", "Filipino": "fil", "Finnish": "fi fin", "French": "fr fra",
    "Galician": "gl glg", "Georgian": "ka kat", "German": "de deu", "Greek": "el ell",
    "Gujarati": "gu guj", "Hausa": "ha hau", "Hebrew": "he heb", "Hindi": "hi hin", "Hungarian": "hu hun",
    "Icelandic": "is isl", "Igbo": "ig ibo", "Indonesian": "id ind", "Irish": "ga gle",
    "Italian": "it ita", "Japanese": "ja jpn", "Javanese": "jv jav", "Kannada": "kn kan",
    "Kazakh": "kk kaz", "Khmer": "km khm", "Kinyarwanda": "rw kin", "Korean": "ko kor",
    "Kurdish (Kurmanji)": "ku kmr", "Kurdish (Sorani)": "ckb", "Kyrgyz": "ky kir", "Lao": "lo lao",
    "Latin": "la lat", "Latvian": "lv lav lvs", "Lithuanian": "lt lit", "Macedonian": "mk mkd",
    "Malagasy": "mg mlg plt", "Malay": "ms msa zsm", "Malayalam": "ml mal", "Maltese": "mt mlt",
    "Marathi": "mr mar", "Mongolian": "mn mon khk", "Moroccan Arabic": "ary", "Nepali": "ne nep npi",
    "Norwegian Bokmål": "nb nob", "Norwegian Nynorsk": "nn nno", "Norwegian": "no nor",
    "Odia": "or ori ory", "Oromo": "om orm gaz", "Pashto": "ps pus", "Persian": "fa fas pes",
    "Polish": "pl pol", "Portuguese": "pt por", "Punjabi": "pa pan", "Romanian": "ro ron",
    "Russian": "ru rus", "Serbian": "sr srp", "Sindhi": "sd snd", "Sinhala": "si sin", "Slovak": "sk slk",
    "Slovenian": "sl slv", "Somali": "so som", "Spanish": "es spa", "Swahili": "sw swa swh",
    "Swedish": "sv swe", "Tagalog": "tl tgl", "Tajik": "tg tgk", "Tamil": "ta tam", "Tatar": "tt tat",
    "Telugu": "te tel", "Thai": "th tha", "Tibetan": "bo bod", "Tigrinya": "ti tir", "Turkish": "tr tur",
    "Turkmen": "tk tuk", "Ukrainian": "uk ukr", "Urdu": "ur urd", "Uyghur": "ug uig",
    "Uzbek": "uz uzb uzn", "Vietnamese": "vi vie", "Welsh": "cy cym", "Wolof": "wo wol",
    "Xhosa": "xh xho", "Yiddish": "yi yid", "Yoruba": "yo yor", "Zulu": "zu zul",
}  # fmt: skip
_BY_CODE = {code: name for name, codes in _NAMES.items() for code in codes.split()}


def language_name(code: str) -> str:
    """Return the English name of a language code; with a script or a region, the code stands behind it.

    de, deu: German. pt-BR: Portuguese (pt-BR). A code that the table lacks: the code.
    """
    first, _, more = code.partition("-" if "-" in code else "_")
    name = _BY_CODE.get(first.lower())
    if name is None:
        return code
    return f"{name} ({code})" if more else name
