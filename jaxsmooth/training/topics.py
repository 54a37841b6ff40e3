"""The topics of the topic corpora, in the order of their labels: alphabetical."""

TOPICS: dict[str, tuple[str, ...]] = {
    "newsgroups": (
        *("alt.atheism", "comp.graphics", "comp.os.ms-windows.misc", "comp.sys.ibm.pc.hardware"),
        *("comp.sys.mac.hardware", "comp.windows.x", "misc.forsale", "rec.autos", "rec.motorcycles"),
        *("rec.sport.baseball", "rec.sport.hockey", "sci.crypt", "sci.electronics", "sci.med", "sci.space"),
        *("soc.religion.christian", "talk.politics.guns", "talk.politics.mideast", "talk.politics.misc"),
        "talk.religion.misc",
    ),
    "reuters-r8": (*("acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade"),),
    "reuters-r52": (
        *("acq", "alum", "bop", "carcass", "cocoa", "coffee", "copper", "cotton", "cpi", "cpu", "crude"),
        *("dlr", "earn", "fuel", "gas", "gnp", "gold", "grain", "heat", "housing", "income", "instal-debt"),
        *("interest", "ipi", "iron-steel", "jet", "jobs", "lead", "lei", "livestock", "lumber", "meal-feed"),
        *("money-fx", "money-supply", "nat-gas", "nickel", "orange", "pet-chem", "platinum", "potato"),
        *("reserves", "retail", "rubber", "ship", "strategic-metal", "sugar", "tea", "tin", "trade"),
        *("veg-oil", "wpi", "zinc"),
    ),
}
"""Asset -> the names of its classes."""
