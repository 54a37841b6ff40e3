"""`jaxsmooth remedies`, `glossary`, `assets`: what there is, at once."""

from rich.table import Table

from ..errors import AssetError, ConfigError, did_you_mean
from ..terminal import PlainConsole, say
from .commands import AssetPath, ClearAssets, FetchAsset, Glossary, ListAssets, VerifyAssets


def run_remedies() -> None:
    """`jaxsmooth remedies`."""
    from ..mitigations.parse import METHODS

    table = Table("remedy", "parameters and defaults", "source", show_lines=True)
    for name, method in METHODS.items():
        parameters = (
            f"{key}{'' if one.default is None else f' = {one.default:g}'}: {one.about}"
            for key, one in method.parameters.items()
        )
        table.add_row(name, "\n".join(parameters) or "none", method.source)
    PlainConsole().print(table)
    say("For example: jaxsmooth compare minilm-l6 --with attnscale:0.3,gfsa:power=0.2:order=4,contranorm+neutreno")


def run_glossary(command: Glossary) -> None:
    """`jaxsmooth glossary`."""
    from ..report.sections import glossary

    if command.name is None:
        say("; ".join(entry.title for entry in glossary.GLOSSARY.values()))
        say("What one of them means: jaxsmooth glossary WORD")
        return
    found = glossary.find(command.name)
    if not found:
        known = [*glossary.GLOSSARY, *(entry.title for entry in glossary.GLOSSARY.values())]
        raise ConfigError(f"the glossary has no {command.name!r}.{did_you_mean(command.name, known)}")
    for entry in found:
        say(glossary.in_words(entry))


def run_assets(command: ListAssets | FetchAsset | AssetPath | ClearAssets | VerifyAssets) -> None:
    """`jaxsmooth assets list|fetch|path|clear|verify`."""
    from .. import assets

    match command:
        case ListAssets():
            table = Table("name", "kind", "MB", "licence", "state", "description")
            for asset, state in assets.assets_table():
                table.add_row(asset.name, asset.kind, f"{asset.size_mb:.1f}", asset.licence, state, asset.description)
            PlainConsole().print(table)
        case FetchAsset(name):
            say(assets.fetch(name))
        case AssetPath(name):
            say(assets.asset_path(name))
        case ClearAssets(name, everything):
            if (name is None) is not everything:
                raise AssetError("name the one asset to clear, or give --all and no name.")
            removed = assets.clear(name)
            say(f"removed {', '.join(removed)}" if removed else "nothing to remove")
        case VerifyAssets(name):
            found = assets.verify(name)
            for asset_name, state, why in found:
                say(f"{asset_name}: {state}{': ' * bool(why)}{why}")
            if any(state == "damaged" for _, state, _ in found):
                raise AssetError("some cached files are damaged; `jaxsmooth assets fetch NAME` replaces them.")
