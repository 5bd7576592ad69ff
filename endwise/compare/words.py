"""What is said about a comparison: the documented JSON, what has to be considered beside the verdict, and the table of
nine aspects. Every sentence and every cell comes from a number of findings.py.
"""

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from endwise.compare.arms import ANEW_SHARE, PRETRAINED
from endwise.compare.findings import DRIFT_REGIMES, KINDS, WATTS, Findings
from endwise.compare.measure import STRENGTHS
from endwise.compare.settings import Settings
from endwise.compare.verdict import FEWEST_SEEDS, NONE, PIPELINE, PIPELINES, RULE, SAME, WINS, Verdict
from endwise.metrics import Estimate
from endwise.modalities.base import Modality

UNLIKE = 0.1  # of the parameters: two networks that differ by more are not called equally large


def summary(found: Findings, settings: Settings, how: str, other: Findings | None = None) -> dict[str, Any]:
    """The documented JSON. how: the rows of another kind in words, '' where there are none. other: of the arms that learn
    another answer."""
    bench, verdict = found.bench, found.verdict()
    parts: dict[str, Any] = {
        "regimes": found.regimes(), "attribution": found.attribution(), "baselines": found.beside, "reach": found.reach(),
        "curves": found.curves(), "shift": found.shift(how), "costs": found.costs(), "inputs": found.inputs(),
        "exchanged": found.exchanged(), "faithfulness": found.faithfulness(), "pretrained": _pretrained(found, settings),
        "retarget": {} if other is None else _retarget(found, other), "together": _together(found),
        "fusion": _fusion(found),
    }  # fmt: skip
    parts["intermediates"], parts["drift"] = found.intermediates()
    goal = {
        "output": bench.goal.output,
        "metric": found.goal.name,
        "direction": found.goal.direction,
        "unit": found.goal.unit,
    }
    rival = verdict.pipeline or next(iter(found.names), None)
    sides = {side: len(bench.dataset.splits.side(side)) for side in ("train", "val", "test")}
    said, aspects = considerations(found, verdict, parts), table(found, parts)
    return {
        "goal": found.called, "regimes": parts.pop("regimes"), "verdict": verdict.words, "against": verdict.to_dict(),
        "considerations": said, "attribution": parts.pop("attribution"), "table": aspects,
        "gains": {"over": rival, "regimes": found.gains(rival)}, **parts,
        "name": bench.recipe.name, "about": goal, "rule": RULE, "rows": {**sides, "costly": len(bench.some)},
        "stages": {name: {"from": list(item.given), "to": list(item.to)} for name, item in bench.recipe.stages.items()},
        "settings": settings.to_dict(), "notes": notes(found, settings, other),
    }  # fmt: skip


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The documented JSON for a terminal of 80 columns."""
    goal = found["about"]
    yield f"{found['goal']} ({'larger' if goal['direction'] == 'max' else 'smaller'} is better), {found['rows']['test']} test rows"
    for name, item in found["regimes"].items():
        seeds = len(item["seeds"])
        yield f"  {name:<20}{_spelled(item)}  {seeds} {'seed' if seeds == 1 else 'seeds'}"
    for kind, item in found["baselines"].get(goal["output"], {}).items():
        yield f"  {kind + ' baseline':<20}{'none' if item is None else _spelled(item)}"
    for name, item in found["inputs"].items():
        yield f"  only {name:<15}{_spelled(item)}"
    if found["retarget"]:
        yield f"{found['retarget']['goal']} in the place of {found['retarget']['in_place_of']}, going on with all labels:"
    for name, item in found["retarget"].get("regimes", {}).items():
        further, anew = (f"{_spelled(own[-1]) if own else 'failed'}" for own in (item["further"], item["anew"]))
        yield f"  {name:<20}{further}, from nothing {anew.partition(' ')[0]}; {_changed(item['changed'])}"
    yield ""
    for line in (f"{found['verdict']}: {found['against']['because']}", *found["considerations"], *found["notes"]):
        yield from textwrap.wrap(line, 80, subsequent_indent="  ")


def notes(found: Findings, settings: Settings, other: Findings | None) -> list[str]:
    """What a reader has to know about how it was made."""
    bench = found.bench
    each = f"at most {settings.each:.0f} s of wall-clock" if settings.each is not None else "equally many steps"
    said = [
        f"every training on all labels had {each}, the same rows, augmentation, size and learning rate; none was tuned",
        f"energy is an estimate: processor seconds at {WATTS:g} W a core",
    ]
    said += _unequal(found)
    said += [_begins(bench.recipe.inputs[name], name, source) for name, source in settings.pretrained.items()]
    if settings.seeds < FEWEST_SEEDS:
        said.append(f"{settings.seeds} of the {FEWEST_SEEDS} seeds that a verdict takes")
    if other is not None:
        said.append(
            f"{other.bench.goal.output} was learnt in the place of the goal with {ANEW_SHARE:.0%} of a training's budget, with one seed, from the finished "
            "training on all labels and from nothing; in regimes with stages, those that do not answer it stay as they are"
        )
    for item in (*found.kept, *(other.kept if other is not None else ())):
        if item.cost.failed:
            said.append(f"{item.arm} came to nothing: {item.cost.failed}")
    if len(bench.some) < len(bench.test):
        said.append(f"substitution and noise were measured on {len(bench.some)} of {len(bench.test)} test rows")
    if not len(bench.shifted):
        still = sorted(set(bench.recipe.inputs) - set(found.disturbed))
        said += [f"{', '.join(still)}: not disturbed, there is no noise for such values"] if still else []
    return said + [f"baseline of {name}: {line}" for name, item in found.baselines.items() for line in item["notes"]]


def _unequal(found: Findings) -> Iterator[str]:
    """That `direct` is not as large as the stages, where depth alone could not make it so."""
    staged = next((name for name in (*PIPELINES, *DRIFT_REGIMES) if found.parameters(name)), None)
    one, whole = found.parameters("direct"), found.parameters(staged or "")
    if one and whole and abs(one - whole) > UNLIKE * whole:
        yield (
            f"direct has {one:,} parameters and the network in stages {whole:,}: its depth brings it no nearer, so a "
            "difference between them may be one of size"
        )


def considerations(found: Findings, verdict: Verdict, parts: Mapping[str, Any]) -> list[str]:
    """Sentences beside the verdict, each from a number; none of them is a verdict."""
    said = [
        f"{item['output']} has drifted in {item['regime']}: its {parts['intermediates'][item['output']]['metric']} is worse "
        f"than in {item['against']} by {item['worse_by']['value']:.3g}; what it says there explains nothing"
        for item in parts["drift"]
    ]
    said += [item["alarm"]["message"] for item in parts["together"].get("outputs", {}).values() if item["alarm"]]
    said += [parts["fusion"]["said"]] if parts["fusion"] else []
    said += _against_baselines(found, parts)
    said += [f"{PRETRAINED} {parts['pretrained']['said']}"] if parts["pretrained"].get("said") else []
    said += _cut_short(found)
    if verdict.end_to_end is None or verdict.pipeline is None or not found.bench.recipe.stages:
        return said
    pair = (verdict.end_to_end, verdict.pipeline)
    if verdict.words == SAME:
        count = len(found.bench.recipe.stages)
        said.append(
            f"{pair[0]} and {pair[1]} are equal within the interval; a pipeline of {count} stages can be audited and "
            "mended stage by stage, which may decide"
        )
    few = sorted({item.arm.share for item in found.kept if item.arm.share < 1})
    seen = [
        (f"with {share:.0%} of the labels", found.gain_under(found.own, found.bench.test, pair, share)) for share in few
    ]
    if len(found.bench.shifted):
        seen.append(("on the held-out group", found.gain_under("shifted", found.bench.shifted, pair)))
    for strength in () if len(found.bench.shifted) else STRENGTHS:
        gain = found.gain_under(f"disturbed/{strength:g}", found.bench.some, pair)
        seen.append((f"with noise of {strength:g} on the inputs", gain))
    return said + _leads([(where, gain) for where, gain in seen if gain is not None], verdict, pair)


def _cut_short(found: Findings) -> Iterator[str]:
    """Trainings that had no time for one pass over their rows."""
    short = [item for item in found.kept if item.cost.passes is not None and item.cost.passes < 1]
    if short:
        shares = sorted({item.arm.share for item in short})
        where = ", ".join("all labels" if share == 1 else f"{share:.0%} of the labels" for share in shares)
        yield (
            f"{len(short)} of {len(found.kept)} trainings (on {where}) had no time to see each of their rows once: what is said "
            "of these is about the budget; raise it"
        )


def _together(found: Findings) -> dict[str, Any]:
    """{'outputs': each in the one network and in one of its own, 'said': the watch's alarms, or why there are none}; {} where
    the two were not both trained."""
    items = found.together()
    if not items:
        return {}
    said = [item["alarm"]["message"] for item in items.values() if item["alarm"] is not None]
    seeds = min(item["seeds"] for item in items.values())
    if seeds < FEWEST_SEEDS:
        few = f"{seeds} {'seed' if seeds == 1 else 'seeds'} of the {FEWEST_SEEDS} that it takes"
        said.append(f"whether an answer is worse together than alone is not told: {few}")
    elif not said:
        said.append("no answer is seen to be worse in the one network than in one of its own: the intervals meet")
    return {"outputs": items, "said": said}


def _fusion(found: Findings) -> dict[str, Any]:
    """Whether one input is enough, or all of them are better: the paired differences and a sentence; {} where the subsets of
    the inputs were not trained."""
    verdicts = found.fusion()
    if not verdicts:
        return {}
    one, fewer = verdicts["one"], verdicts["fewer"]
    said = f"{_enough(one)}: {one.because}"
    if one.words == WINS and fewer.pipeline != one.pipeline:
        said += f"; {_enough(fewer)}: {fewer.because}"
    told = {kind: {"words": item.words, "inputs": item.pipeline, **item.to_dict()} for kind, item in verdicts.items()}
    for item in told.values():
        del item["end_to_end"], item["pipeline"]
    return {"all": one.end_to_end, **told, "said": said}


def _enough(verdict: Verdict) -> str:
    """What a difference between all inputs and fewer of them says."""
    every, few = verdict.end_to_end, verdict.pipeline
    if verdict.words == WINS:
        return f"fusion pays: {every} together are better than {few} alone, the best of so few"
    if verdict.words == PIPELINE:
        return f"{few} alone is better than {every} together: the others are in its way"
    if verdict.words == SAME:
        return f"{few} alone is enough, as far as is seen: {every} together are not seen to be better"
    return "whether fewer inputs are enough is not told"


def _pretrained(found: Findings, settings: Settings) -> dict[str, Any]:
    """The weights from elsewhere, and whether they are better than the best regime; {} where there are none."""
    verdict = found.pretrained()
    if verdict is None:
        return {"weights": dict(settings.pretrained)} if settings.pretrained else {}
    best = f"{verdict.pipeline}, the best regime by the validation rows"
    words = {WINS: f"is better than {best}", PIPELINE: f"is worse than {best}",
             SAME: f"is not seen to be better or worse than {best}", NONE: "is not told from the regimes"}  # fmt: skip
    told = verdict.to_dict()
    return {
        "weights": dict(settings.pretrained), "against": told["pipeline"], "gain": told["gain"],
        "detectable": told["detectable"], "said": f"{words[verdict.words]}: {verdict.because}",
    }  # fmt: skip


def _retarget(found: Findings, other: Findings) -> dict[str, Any]:
    """What another answer costs each regime."""
    goal, metric = other.bench.goal, other.goal
    return {
        "output": goal.output, "type": other.bench.recipe.outputs[goal.output].type, "goal": other.called, "metric": metric.name,
        "direction": metric.direction, "in_place_of": found.bench.goal.output, "budget_share": ANEW_SHARE,
        "constant": other.trivial(goal.output), "seed": found.bench.recipe.train.seed, "regimes": other.anew(),
    }  # fmt: skip


def _changed(changed: Mapping[str, Any] | None) -> str:
    return "—" if changed is None else f"{changed['share']:.0%} new"


def _begins(item: Modality, name: str, source: str) -> str:
    """What an input begins with, and what it goes without for that."""
    left = [field for field in getattr(item, "instead", ()) if field in item.to_dict()]
    without = f", without its {', '.join(left)}" if left else ""
    return f"{PRETRAINED}: {name} begins with {source}{without}; their layers learn at a rate of their own (fine_tune: full)"


def _leads(seen: Sequence[tuple[str, Estimate]], verdict: Verdict, pair: tuple[str, str]) -> list[str]:
    """Who is ahead elsewhere, where that is not what the verdict says of the test rows."""
    gone = "the lead is not seen any more" if verdict.words in (WINS, PIPELINE) else "neither is seen to be better"
    places: dict[str, list[str]] = {f"{pair[0]} is better": [], f"{pair[1]} is better": [], gone: []}
    for where, gain in seen:
        who = f"{pair[0]} is better" if gain.low > 0 else f"{pair[1]} is better" if gain.high < 0 else gone
        places[who].append(f"{where} ({gain.value:+.3g} [{gain.low:+.3g}, {gain.high:+.3g}])")
    return [f"{who} {', '.join(where)}" for who, where in places.items() if where]


def _against_baselines(found: Findings, parts: Mapping[str, Any]) -> list[str]:
    """What is better than all regimes, or than none of them: a comparison of two bad answers decides nothing."""
    beside, said = parts["baselines"].get(found.bench.goal.output, {}), []
    for kind in KINDS:
        gains = found.over_baseline(kind)
        if not gains or beside[kind]["value"] is None:  # these rows do not define the metric: nothing is seen
            continue
        value = f"the {kind} baseline ({beside[kind]['value']:.4g})"
        if all(gain.high < 0 for gain in gains.values()):
            said.append(f"{value} is better than every regime: use it, or find out why")
        elif not any(gain.low > 0 for gain in gains.values()):
            said.append(f"no regime is seen to be better than {value}: nothing is won by any of them yet")
    return said


# ---- the table -------------------------------------------------------------------------------------------------------


def table(found: Findings, parts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Nine aspects: what is measured for each, and its number in every regime or why there is none."""
    reach, costs, oracle = parts["reach"], parts["costs"], parts["attribution"]

    def row(aspect: str, measured: str, cell: Callable[[str], str | None], lacking: str) -> dict[str, Any]:
        cells = {name: cell(name) for name in found.names}
        if all(value is None for value in cells.values()):
            return {"aspect": aspect, "measured": f"not measured: {lacking}", "regimes": {}}
        return {
            "aspect": aspect,
            "measured": measured,
            "regimes": {name: value or "—" for name, value in cells.items()},
        }

    def flow(name: str) -> str | None:
        norms = list(reach.get(name, {}).values())
        return f"{norms[0] / norms[-1]:.2g}" if len(norms) > 1 and norms[-1] > 0 else None

    def spread(name: str) -> str | None:
        values = parts["regimes"][name]["seeds"]
        return f"{max(values) - min(values):.3g}" if len(values) > 1 and all(map(math.isfinite, values)) else None

    def propagated(name: str) -> str | None:
        steps = oracle.get(name, {}).get("oracle", [])
        whole = [step for step in steps if len(step["replaced"]) == len(found.bench.recipe.intermediates)]
        return _spelled(whole[0]["gain"]) if whole else None

    def efficient(name: str) -> str | None:
        curve = parts["curves"].get(name, [])
        return f"{_number(curve[0], 4)} with {curve[0]['share']:.0%}" if len(curve) > 1 else None

    def explained(name: str) -> str | None:
        said = [f"{output} {_number(item['regimes'][name], 3)}" for output, item in parts["intermediates"].items()
                if name in item["regimes"]]  # fmt: skip
        said += [f"faithful by {_spelled(parts['faithfulness'][name])}"] if name in parts["faithfulness"] else []
        return ", ".join(said) or None

    def latency(name: str) -> str | None:
        cost = costs[name]
        timed = f", n = {cost['timed_answers']}" if "timed_answers" in cost else ""
        return f"{cost['p50_ms']:.1f} / {cost['p95_ms']:.1f} ms{timed}" if "p50_ms" in cost else None

    def exchanged(name: str) -> str | None:
        return _spelled(parts["exchanged"][name]) if name in parts["exchanged"] else None

    def trained(name: str) -> str:
        cost = costs[name]
        failed = f", {cost['failed']} failed" if cost["failed"] else ""
        return f"{cost['seconds']:.1f} s, {cost['trained_parts']} {'part' if cost['trained_parts'] == 1 else 'parts'}{failed}"

    return [
        row("information flow", "the goal's gradient at the first stage, as a share of that at the last", flow,
            "there are no stages"),
        row("optimisation", "goal: the best seed minus the worst", spread, "one seed"),
        row("error propagation", "goal: what is gained if every answer on the way were true", propagated,
            "there are no answers on the way with a truth to put in their place"),
        row("data efficiency", "goal with the fewest labels", efficient, "all trainings had all labels"),
        row("explainability", "how right the answers on the way are, by their own metric; and how much worse the goal is "
            "without the quarter of the input that an answer leans on than without any other (0: not faithful)", explained,
            "there are no answers on the way, and no sound or image to look into"),
        row("latency", "p50 and p95 of one row, one thread, reading left out",
            latency,
            "no model could be timed"),
        row("performance", found.called, lambda name: _spelled(parts["regimes"][name]), "no training was finished"),
        row("flexibility", "goal: what comes of another training's first stage in the place of its own (0: parts can be "
            "exchanged)", exchanged, "there are no parts to exchange, or one seed"),
        row("training difficulty", "seconds and trained parts of one seed", trained, "no training was finished"),
    ]  # fmt: skip


def _spelled(value: Mapping[str, Any]) -> str:
    if None in (value["value"], value["low"], value["high"]):
        return _number(value, 4)
    return f"{_number(value, 4)} [{value['low']:.3g}, {value['high']:.3g}]"


def _number(value: Mapping[str, Any], digits: int) -> str:
    return "undefined" if value["value"] is None else f"{value['value']:.{digits}g}"


__all__ = ["considerations", "lines", "notes", "summary", "table"]
