"""What a model reads in an experiment on few texts: short reviews, of a protein model antibodies."""

from jaxsmooth import Tokenizer
from jaxsmooth.assets.texts import read_texts

SHORTEST, LONGEST = 17, 32
"""Tokens of a review: batches of one shape."""
ANTIBODIES = (
    "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKGRFTISADTSKNTAYLQMNSLRAEDTAVYYCSRWGGDGFYAMDYWGQGTLVTVSS",
    "DIQMTQSPSSLSASVGDRVTITCRASQDVNTAVAWYQQKPGKAPKLLIYSASFLYSGVPSRFSGSRSGTDFTLTISSLQPEDFATYYCQQHYTTPPTFGQGTKVEIK",
    "EVQLVESGGGLVQPGRSLRLSCAASGFTFDDYAMHWVRQAPGKGLEWVSAITWNSGHIDYADSVEGRFTISRDNAKNSLYLQMNSLRAEDTAVYYCAKVSYLSTASSLDYWGQGTLVTVSS",
    "DIQMTQSPSSLSASVGDRVTITCRASQGIRNYLAWYQQKPGKAPKLLIYAASTLQSGVPSRFSGSGSGTDFTLTISSLQPEDVATYYCQRYNRAPYTFGQGTKVEIK",
    "QVQLQQPGAELVKPGASVKMSCKASGYTFTSYNMHWVKQTPGRGLEWIGAIYPGNGDTSYNQKFKGKATLTADKSSSTAYMQLSSLTSEDSAVYYCARSTYYGGDWYFNVWGAGTTVTVSA",
    "QIVLSQSPAILSASPGEKVTMTCRASSSVSYIHWFQQKPGSSPKPWIYATSNLASGVPVRFSGSGSGTSYSLTISRVEAEDAATYYCQQWTSNPPTFGGGTKLEIK",
    "EVQLVESGGGLVQPGGSLRLSCAASGYTFTNYGMNWVRQAPGKGLEWVGWINTYTGEPTYAADFKRRFTFSLDTSKSTAYLQMNSLRAEDTAVYYCAKYPHYYGSSHWYFDVWGQGTLVTVSS",
    "QVQLKQSGPGLVQPSQSLSITCTVSGFSLTNYGVHWVRQSPGKGLEWLGVIWSGGNTDYNTPFTSRLSINKDNSKSQVFFKMNSLQSNDTAIYYCARALTYYDYEFAYWGQGTLVTVSA",
)
"""Variable domains of five approved antibodies (trastuzumab, adalimumab, rituximab, bevacizumab, cetuximab), as the
literature has them, not compared with a data base letter by letter: the kind of sequence that `antiberty` reads."""


def short_texts(model: str, tokenizer: Tokenizer, count: int) -> tuple[list[str], str]:
    """The first so many movie reviews of few tokens, of `antiberty` antibody sequences; and what they are, in words."""
    if model == "antiberty":
        texts = list(ANTIBODIES[:count])
        tokens = [int(tokenizer([text]).mask.sum()) for text in texts]
        return texts, f"{len(texts)} antibody sequences of {min(tokens)} to {max(tokens)} tokens"
    reviews = read_texts("movie-reviews", 800)
    texts = [text for text in reviews if SHORTEST <= int(tokenizer([text]).mask.sum()) <= LONGEST][:count]
    return texts, f"{len(texts)} movie reviews of {SHORTEST} to {LONGEST} tokens"
