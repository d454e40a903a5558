"""IPAPack++ in little: its ten corpora, its 88 languages, its folders, its oddities.

About 200 cuts of a second. Folder names, splits, spellings of languages, ids and null
fields are those of the published data; what is said is made up, and the audio is tones.
"""

from pathlib import Path

from shar_builder import make_cut, members_of, write_cuts, write_shard, write_tar

from powsm.audio import SAMPLE_RATE
from powsm.languages import TABLE, lang_code

COMMON_VOICE = (
    "ar ba be bn ca cs da de en es et eu fr gl ha hi hu ia id it ja ka kmr ml mn mr mt "
    "nl pl pt ro ru rw sk skr sl sr sv-SE sw ta th tr tt ug uk ur uz vi yo zh-CN zh-HK"
).split()
FLEURS = (
    "af_za am_et ar_eg az_az be_by bg_bg bn_in bs_ba ca_es ceb_ph cmn_hans_cn cs_cz "
    "cy_gb da_dk de_de el_gr en_us es_419 et_ee ff_sn fi_fi ga_ie gl_es ha_ng hi_in "
    "hr_hr hu_hu id_id is_is it_it ja_jp jv_id ka_ge kk_kz ko_kr ky_kg lo_la lt_lt "
    "mi_nz mk_mk ml_in mn_mn mr_in ms_my mt_mt my_mm nb_no nl_nl ny_mw om_et or_in "
    "pa_in pl_pl pt_br ro_ro ru_ru sd_in sk_sk sl_si sn_zw so_so sr_rs sv_se sw_ke "
    "ta_in te_in tg_tj th_th tr_tr uk_ua ur_pk uz_uz vi_vn xh_za yo_ng yue_hant_hk "
    "zu_za"
).split()
LOW_RESOURCE = "af_za om_et az_az pa_in tg_tj mk_mk bs_ba sl_si".split()
MLS = {
    "dutch": "nl",
    "french": "fr",
    "german": "de",
    "italian": "it",
    "polish": "pl",
    "portuguese": "pt",
    "spanish": "es",
}

# Words as the labels spell them: stress, length, ties, an ASCII g, a breve.
_WORDS = "ˈpʰaːti gaˈt͡ʃeu ˈd͡ʒinə ɲɔʎˈtsã ʂɨˈɾʲe kˤʊŋ hælˈoʊ ɜːθ bĭs ʃœʁ ˈɬaχ wɛ".split()
_LETTERS = {  # scripts whose words differ from Latin ones: three letters of each
    "Arab": "ابت",
    "Beng": "কগন",
    "Cyrl": "абв",
    "Deva": "कगन",
    "Ethi": "ሀለሐ",
    "Geor": "აბგ",
    "Grek": "αβγ",
    "Guru": "ਕਗਨ",
    "Hani": "一人大",
    "Jpan": "あいう",
    "Kore": "가나다",
    "Laoo": "ກຂຄ",
    "Mlym": "കഗന",
    "Mymr": "ကခဂ",
    "Orya": "କଗନ",
    "Sinh": "කගන",
    "Taml": "கஙச",
    "Telu": "కగన",
    "Thai": "กขค",
}


def make_ipapack(downloads: Path) -> int:
    """Write `<corpus>_shar/<split>/`; returns the number of cuts."""
    maker = _Maker(downloads)
    maker.add("aishell", "train", "zh", n=2)
    maker.add("aishell", "dev", "zh")
    maker.add("aishell", "test", "zh", n=2)
    maker.add("cv", "train", *COMMON_VOICE)
    maker.add("cv", "dev", "en", "ia")
    maker.add("cv", "test", "en", "zh-HK", "ia", "rw")
    maker.add("librispeech", "train-clean-100", "English", n=2)
    maker.add("librispeech", "dev-clean", "English")
    maker.add("librispeech", "dev-other", "English")
    maker.add("librispeech", "test-clean", "English", n=2)
    maker.add("librispeech", "test-other", "English", n=2)
    for name, language in MLS.items():
        maker.add(f"mls_{name}", "train", language)
        maker.add(f"mls_{name}", "dev", language)
        maker.add(f"mls_{name}", "test", language)
    for locale in FLEURS:
        maker.add("fleurs", f"{locale}-train", locale)
    for locale in ("en_us", "af_za"):
        maker.add("fleurs", f"{locale}-dev", locale)
    for locale in (*LOW_RESOURCE, "en_us", "yue_hant_hk"):
        maker.add("fleurs", f"{locale}-test", locale)
    maker.add("kazakh", "train", "kk")
    maker.add("kazakh", "dev", "kk")
    maker.add("kazakh", "test", "kk", n=2)
    maker.add("kazakh2", "audio2", "kk", suffix=".wav-0", n=2)
    maker.add("tamil", "train", "ta")
    maker.add("tamil", "test", "ta", n=2)
    maker.add("crowdsourced", "train", "bn", "jv", "si")
    # languages that no one trained on, one of them unnamed; every folder is a test
    maker.add("doreco", "train", "evn", "kkt", text="")
    maker.add("doreco", "dev", "", text="")
    maker.add_odd_cuts()
    return maker.n_cuts


class _Maker:
    def __init__(self, downloads: Path):
        self.downloads = downloads
        self.n_cuts = 0

    def add(
        self,
        corpus: str,
        split: str,
        *languages: str,
        n: int = 1,
        suffix: str = "",
        text: str | None = None,
    ) -> None:
        """A shard with `n` cuts a language."""
        cuts = [
            self.cut(corpus, language, suffix, text)
            for language in languages
            for _ in range(n)
        ]
        folder = self.downloads / f"{corpus}_shar" / split
        number = len(list(folder.glob("cuts.*")))
        write_shard(folder, cuts, f"{number:06d}")

    def cut(self, corpus: str, language: str, suffix: str = "", text=None) -> dict:
        i = self.n_cuts
        self.n_cuts += 1
        words = [_WORDS[(i + k) % len(_WORDS)] for k in range(3)]
        return make_cut(
            f"{corpus}-{i * 2654435761 % 2**32:010d}-{i}{suffix}",
            n_samples=SAMPLE_RATE + 160 * (i % 7),
            language=language,
            speaker=f"speaker{i % 5}" if i % 4 else None,
            text=self.text(language) if text is None else text,
            ipa=" ".join(words),
            phones="".join(words).replace("ˈ", ""),
        )

    def text(self, language: str) -> str:
        code = lang_code(language)
        script = TABLE[code].script if code in TABLE else "Latn"
        letters = _LETTERS.get(script, "aeibdn")
        i = self.n_cuts
        return " ".join(
            "".join(letters[(i // k + n) % len(letters)] for n in range(k + 1))
            for k in (1, 2, 3)
        ).capitalize()

    def add_odd_cuts(self) -> None:
        """What stage 1 or 4 has to drop, and IPA that only `phones` holds."""
        odd = {name: self.cut("cv", "en") for name in ODD_CUTS}
        custom = {n: c["supervisions"][0]["custom"] for n, c in odd.items()}
        custom["no_ipa"] |= {"original": None, "phones": None}
        custom["null_text"] |= {"orthographic": None}
        custom["phones_alone"] |= {"original": None}
        custom["too_many_phones"] |= {"original": "pa" * 151}
        for name, n_samples in (("too_long", 20 * SAMPLE_RATE + 16), ("too_short", 99)):
            odd[name] = make_cut(odd[name]["id"], n_samples=n_samples, language="en")
        folder = self.downloads / "cv_shar/train"
        members = []
        for name, cut in odd.items():
            if name == "no_audio":
                members += [(f"{cut['id']}.nodata", b""), (f"{cut['id']}.nometa", b"")]
                del cut["recording"]
            else:
                members += members_of(cut)
        write_cuts(folder / "cuts.000001.jsonl.gz", list(odd.values()))
        write_tar(folder / "recording.000001.tar", members)


ODD_CUTS = (
    "no_ipa",
    "no_audio",
    "null_text",  # kept, for phone recognition alone
    "phones_alone",  # kept
    "too_many_phones",
    "too_long",
    "too_short",
)
