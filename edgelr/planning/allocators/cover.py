"""Groups that exclude each other: every way to have each site in exactly one of them."""

from __future__ import annotations

from collections.abc import Iterator

from edgelr.planning.candidates import Options

Cover = tuple[Options, ...]


def components(options: list[Options]) -> list[list[Cover]]:
    """Divide the groups into sets that share no site, and list the exact covers of each.

    A site that is in one group only makes a component with one cover. Query, key and value, alone
    or together or with those of the next block, make a component with many.
    """
    members: dict[str, list[Options]] = {}
    for option in options:
        for site in option.sites:
            members.setdefault(site, []).append(option)
    found: list[list[Cover]] = []
    seen: set[str] = set()
    for option in options:
        if option.name not in seen:
            component = _connected(option, members)
            seen.update(component)
            sites = sorted({site for each in component.values() for site in each.sites})
            found.append(list(_covers(sites, members)))
    return found


def smallest_bytes(options: list[Options]) -> int:
    """Bytes of the smallest choice that covers every site."""
    return sum(
        min(sum(option.smallest.bytes for option in cover) for cover in covers)
        for covers in components(options)
    )


def _connected(start: Options, members: dict[str, list[Options]]) -> dict[str, Options]:
    """Every group that can be reached from ``start`` over common sites, by name."""
    found, waiting = {start.name: start}, [start]
    while waiting:
        for site in waiting.pop().sites:
            for other in members[site]:
                if other.name not in found:
                    found[other.name] = other
                    waiting.append(other)
    return found


def _covers(sites: list[str], members: dict[str, list[Options]]) -> Iterator[Cover]:
    """Yield every exact cover of ``sites``: its first site decides, the rest follows."""
    if not sites:
        yield ()
        return
    left = set(sites)
    for option in members[sites[0]]:
        if left.issuperset(option.sites):
            rest = [site for site in sites if site not in option.sites]
            for cover in _covers(rest, members):
                yield (option, *cover)
