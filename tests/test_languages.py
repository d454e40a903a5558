"""Language codes, names and symbols for every spelling that the corpora use."""

import langcodes
import pytest

from powsm.languages import (
    DROPPED_LANGUAGES,
    LANGUAGES,
    TABLE,
    UNKNOWN_LANG_SYM,
    UNKNOWN_LANGUAGE,
    lang_code,
    lang_sym,
    language_name,
)

# The locales of FLEURS whose language is in IPAPack++.
FLEURS = """
af_za=afr am_et=amh ar_eg=ara az_az=aze be_by=bel bg_bg=bul bn_in=ben bs_ba=bos
ca_es=cat ceb_ph=ceb cmn_hans_cn=cmn cs_cz=ces cy_gb=cym da_dk=dan de_de=deu el_gr=ell
en_us=eng es_419=spa et_ee=est ff_sn=ful fi_fi=fin fr_fr=fra ga_ie=gle gl_es=glg
ha_ng=hau hi_in=hin hr_hr=hrv hu_hu=hun id_id=ind is_is=isl it_it=ita ja_jp=jpn
jv_id=jav ka_ge=kat kk_kz=kaz ko_kr=kor ky_kg=kir lo_la=lao lt_lt=lit mi_nz=mri
mk_mk=mkd ml_in=mal mn_mn=mon mr_in=mar ms_my=msa mt_mt=mlt my_mm=mya nb_no=nob
nl_nl=nld ny_mw=nya om_et=orm or_in=ori pa_in=pan pl_pl=pol pt_br=por ro_ro=ron
ru_ru=rus sd_in=snd sk_sk=slk sl_si=slv sn_zw=sna so_so=som sr_rs=srp sv_se=swe
sw_ke=swa ta_in=tam te_in=tel tg_tj=tgk th_th=tha tr_tr=tur uk_ua=ukr ur_pk=urd
uz_uz=uzb vi_vn=vie xh_za=xho yo_ng=yor yue_hant_hk=yue zu_za=zul
""".split()

# Common Voice 16 as it names its folders, for the languages of IPAPack++.
COMMON_VOICE = """
ar=ara ba=bak be=bel bn=ben ca=cat cs=ces cy=cym da=dan de=deu el=ell en=eng es=spa
et=est eu=eus fi=fin fr=fra ga-IE=gle gl=glg ha=hau hi=hin hu=hun ia=ina id=ind it=ita
ja=jpn ka=kat kk=kaz kmr=kmr ko=kor ky=kir lo=lao lt=lit mk=mkd ml=mal mn=mon mr=mar
mt=mlt nl=nld or=ori pa-IN=pan pl=pol pt=por ro=ron ru=rus rw=kin sk=slk skr=skr sl=slv
sr=srp sv-SE=swe sw=swa ta=tam th=tha tr=tur tt=tat ug=uig uk=ukr ur=urd uz=uzb vi=vie
yo=yor yue=yue zh-CN=cmn zh-HK=yue zh-TW=cmn
""".split()

NAMES = """
mls_dutch=nld mls_french=fra mls_german=deu mls_italian=ita mls_polish=pol
mls_portuguese=por mls_spanish=spa dutch=nld French=fra german=deu Italian=ita
polish=pol portuguese=por spanish=spa English=eng Mandarin=cmn Chinese=cmn Cantonese=yue
aishell=cmn kazakh=kaz kazakh2=kaz tamil=tam librispeech=eng Māori=mri maori=mri
Uighur=uig Kirghiz=kir
""".split()

# ISO 639-2/B, and members of macrolanguages that the published list keeps whole.
CODES = """
ger=deu fre=fra dut=nld chi=cmn zho=cmn cze=ces gre=ell wel=cym baq=eus geo=kat ice=isl
mac=mkd mao=mri may=msa bur=mya rum=ron slo=slk swh=swa zsm=msa arb=ara azj=aze ekk=est
khk=mon uzn=uzb ory=ori gaz=orm fuc=ful no=nob nor=nob jw=jav ENG=eng eng=eng
""".split()


@pytest.mark.parametrize("pair", FLEURS + COMMON_VOICE + NAMES + CODES)
def test_lang_code(pair):
    spelling, code = pair.split("=")
    assert lang_code(spelling) == code
    assert code in LANGUAGES


def test_lang_code_of_unseen_languages_is_their_own():
    # test sets have them; the prompt says <unk>, the report names them
    assert lang_code("evn") == "evn"
    assert lang_code("fa_ir") == "fas"


@pytest.mark.parametrize(
    "spelling", ["", " ", "?", "goem1240", "not a language", "und"]
)
def test_lang_code_unknown(spelling):
    assert lang_code(spelling) is None


def test_lang_code_asks_the_corpus_only_when_it_must():
    assert lang_code("", corpus="mls_polish") == "pol"
    assert lang_code("?", corpus="kazakh2") == "kaz"
    assert lang_code("ru", corpus="kazakh2") == "rus"
    assert lang_code("", corpus="fleurs") is None


def test_languages_are_those_of_the_published_vocabulary():
    # IPAPack++ counts 88 because it lists Chinese twice, as cmn and zho
    assert len(LANGUAGES) == 87
    assert (LANGUAGES[0], LANGUAGES[-1]) == ("afr", "zul")
    assert list(LANGUAGES) == sorted(set(LANGUAGES))
    assert "zho" not in LANGUAGES
    assert DROPPED_LANGUAGES < set(LANGUAGES)


@pytest.mark.parametrize("code", LANGUAGES)
def test_language_row(code):
    language = TABLE[code]
    assert lang_code(code) == code
    assert lang_code(language.name) == code
    assert all(lang_code(spelling) == code for spelling in language.spellings)
    assert langcodes.tag_is_valid(f"{code}-{language.script}")  # ISO 15924


def test_lang_sym_knows_the_published_languages_only():
    assert lang_sym("ina") == "<ina>"  # dropped from training, still a symbol
    assert {lang_sym(code) for code in ("evn", UNKNOWN_LANGUAGE, None, "")} == {
        UNKNOWN_LANG_SYM
    }


def test_unknown_language_is_not_the_unknown_token():
    assert UNKNOWN_LANGUAGE != UNKNOWN_LANG_SYM
    assert language_name(UNKNOWN_LANGUAGE) == "unknown language"
    assert language_name("qzz") == "qzz"


def test_unknown_names_are_not_guessed():
    assert lang_code("klingonish") is None
    assert lang_code("klingonish", corpus="cv") is None  # Common Voice, not Chuvash
    assert lang_code("Klingon") == "tlh"


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("zh-min-nan", "nan"), ("zh-nan", "nan"), ("zh-wuu", "wuu"),
        ("zh-hakka", "hak"),
        ("zh-gan", "gan"), ("zh-xiang", "hsn"), ("zh-yue", "yue"), ("zh-cmn", "cmn"),
        ("zh-Hant-HK", "yue"), ("zh_Hant_HK", "yue"), ("zh-Hant-MO", "yue"),
        ("zh-Hans", "cmn"), ("zh-Hant-TW", "cmn"), ("ar-arz", "arz"), ("i-lux", "ltz"),
        ("sr-Latn-RS", "srp"), ("en-usa", "eng"), ("yue_hant_hk", "yue"),
        # no languages
        ("mul", None), ("zxx", None), ("mis", None), ("und", None),
    ],
)  # fmt: skip
def test_tags_whose_second_part_names_the_language(tag, code):
    assert lang_code(tag) == code
