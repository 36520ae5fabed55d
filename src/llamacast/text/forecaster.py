"""A language model as a forecaster: tables in, sample paths out."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import pandas as pd

from llamacast.data.frame import ColumnNames, read_panel
from llamacast.data.panel import Panel
from llamacast.data.tables import Table
from llamacast.forecast import (
    DataError,
    Forecast,
    TrainingRecord,
    check_whole,
    level_name,
    needs,
)
from llamacast.sampling.progress import shown
from llamacast.text.codec import CodecConfig, encode, fit
from llamacast.text.generation import Draws, draw
from llamacast.text.language import DTYPES, Language, load_language
from llamacast.text.likelihood import log_probabilities, next_number
from llamacast.text.prompts import FEWEST_STEPS, Prompt, write_prompt
from llamacast.text.systems import NamedSystem, systems_of
from llamacast.text.windows import System, usable

if TYPE_CHECKING:
    from llamacast.text.finetune import Outcome

DEFAULT_SAMPLES = 20
DEFAULT_MEMORY_BYTES = 512 * 2**20
LONGEST_HORIZON = 10_000
# The part of a history by which ways of writing are judged, and at most so many steps of it.
TAIL_SHARE, LONGEST_TAIL = 1 / 3, 32


class TextForecaster:
    """Series written as digits, and gone on with by a language model. `load_text` makes them."""

    def __init__(self, language: Language, outcome: Outcome | None = None) -> None:
        self.language = language
        self.outcome = outcome
        """What fine-tuning came to, of a forecaster that `finetune` has made."""

    @property
    def name(self) -> str:
        return self.language.name

    @property
    def training(self) -> TrainingRecord:
        """What the weights are known to have learnt from."""
        return self.language.settings.record

    def __repr__(self) -> str:
        """With a digest of weights and settings: what tells one forecaster from another."""
        return f"TextForecaster({self.name!r}, weights={self.language.digest()!r})"

    def forecast(
        self,
        data: Table | Panel,
        horizon: int,
        *,
        num_samples: int = DEFAULT_SAMPLES,
        seed: int = 0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        text: str | Mapping[Any, str] = "",
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        progress: bool | None = None,
        **columns: Unpack[ColumnNames],
    ) -> Forecast:
        """Forecast the `horizon` steps after each series ends, as joint sample paths.

        Args:
            data: a table, as for `llamacast.load().forecast`. With `group_column`, the series of a group
                are told together, step by step, and paths are joint over them.
            horizon: steps to forecast. What the model can read at once holds history and horizon.
            num_samples: paths for each series. The median of some twenty is steadier than one greedy
                path.
            seed: same seed and same series (or group) name, same paths, whatever else is in the data.
            temperature: below 1 narrows, 0 takes the likeliest symbol each time.
            top_p: draw from the likeliest symbols that have this much probability together, in (0, 1].
            text: what is known beside the numbers (events, units, limits), read before them; one text,
                or one for each series or group. Needs a model that reads text.
            memory_bytes: requests that need more than this at a time are answered in parts.
            progress: show a bar; None shows it in a terminal when there are several parts.
            columns: as for `llamacast.load().forecast`; covariates are not used.

        Raises:
            DataError: says what is wrong with the data or the request, where, and how to mend it.
        """
        check_whole("horizon", horizon, LONGEST_HORIZON)
        check_whole("num_samples", num_samples, 100_000)
        if not 0 <= temperature <= 10 or not 0 < top_p <= 1:
            raise DataError(
                f"temperature lies in 0 to 10, top_p in (0, 1]; got {temperature}, {top_p}"
            )
        panel = _read(data, columns)
        systems = systems_of(panel)
        texts = _texts(text, systems, panel)
        prompts = [
            self._prompt(one, horizon, before) for one, before in zip(systems, texts, strict=True)
        ]
        draws = Draws(num_samples, temperature, top_p, seed)
        samples = np.empty((len(panel), num_samples, horizon))
        parts = list(self._parts(systems, prompts, horizon, num_samples, memory_bytes))
        for part, own_samples in shown(parts, len(parts), progress):
            chosen = [prompts[one] for one in part]
            units = draw(
                self.language,
                [prompt.ids for prompt in chosen],
                [systems[one].name for one in part],
                len(systems[part[0]].series),
                horizon,
                draws,
                own_samples,
            ).cpu()
            for one, prompt, own in zip(part, chosen, units.numpy(), strict=True):
                values = prompt.values(np.moveaxis(own, 1, -2))
                samples[list(systems[one].series), own_samples] = np.moveaxis(values, -1, 0)
        return panel.answer(samples, self.name)

    def log_likelihood(
        self, data: Table | Panel, horizon: int, **columns: Unpack[ColumnNames]
    ) -> pd.DataFrame:
        """How likely the last `horizon` values of each series were, given what came before each.

        Logarithms of densities in the units of the data: probabilities of units, over how wide these
        are. Comparable between models and ways of writing; low ones are odd values. The scale is that
        of what comes before all of them; what lies beyond the last number that can be written has an
        exponential tail, and what has no logarithm where these are written has no density at all.

        Returns:
            A row for each series and step: id, time, `log_density` (NaN where a value is missing).
        """
        panel = _read(data, columns)
        check_whole("horizon", horizon, LONGEST_HORIZON)
        rows = np.full((len(panel), horizon), np.nan)
        for system in systems_of(panel):
            if len(system.values) < horizon + FEWEST_STEPS:
                raise DataError(
                    f"{system.name}: {len(system.values)} steps are too few to judge the last {horizon}; "
                    f"there must be {FEWEST_STEPS} before them"
                )
            if not np.isfinite(system.values[:-horizon]).any(axis=0).all():
                raise DataError(
                    f"{system.name}: there are no values before the last {horizon} to judge these by"
                )
            if self._steps_read(system.values.shape[1]) < horizon + FEWEST_STEPS:
                raise DataError(
                    f"{system.name}: the model cannot read {horizon} steps and {FEWEST_STEPS} before them "
                    "at once; ask for a shorter horizon"
                )
            codec = self._choose(system.values[:-horizon], system.name)
            found = self._density(system.values, len(system.values) - horizon, codec, system.name)
            rows[list(system.series)] = found[-horizon:].T
        index = [
            axis.index(len(values) - horizon, horizon)
            for axis, values in zip(panel.axes, panel.values, strict=True)
        ]
        return pd.DataFrame(
            {
                panel.columns.id or "unique_id": np.repeat(np.asarray(panel.ids, object), horizon),
                panel.columns.time: np.concatenate([np.asarray(one) for one in index]),
                "log_density": rows.ravel(),
            }
        )

    def next_quantiles(
        self,
        data: Table | Panel,
        quantiles: Sequence[float] = (0.1, 0.5, 0.9),
        **columns: Unpack[ColumnNames],
    ) -> pd.DataFrame:
        """Quantiles of the next value of each series, exact: from the probabilities of all digits that
        may follow, not from samples.

        Returns:
            A row for each series, indexed by its name, a column for each quantile.
        """
        if not all(0 < one < 1 for one in quantiles):
            raise DataError(f"quantiles must lie between 0 and 1; got {quantiles}")
        panel = _read(data, columns)
        if panel.groups is not None:
            raise DataError("exact quantiles are of series alone; leave group_column out")
        found = []
        for system in systems_of(panel):
            prompt = self._prompt(system, 1, "")
            units = next_number(self.language, prompt.ids).quantile(quantiles)
            found.append(prompt.values(units[:, None, None])[:, 0, 0])
        index = pd.Index(panel.ids, name=panel.columns.id or "unique_id")
        return pd.DataFrame(np.stack(found), index=index, columns=[*map(level_name, quantiles)])

    def finetune(
        self,
        data: Table | Panel,
        horizon: int,
        *,
        validation: Table | Panel | None = None,
        strategy: Literal["lora", "full"] = "lora",
        rank: int = 8,
        learning_rate: float | None = None,
        context: int | None = None,
        batch: int = 16,
        steps: int = 600,
        seed: int = 0,
        budget: float = math.inf,
        directory: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
        **columns: Unpack[ColumnNames],
    ) -> TextForecaster:
        """Learn from one's own series, to forecast `horizon` steps; keep what is better on others.

        Args:
            data: a table, as for `forecast`; all series (or groups) are learnt from together.
            horizon: steps that will be forecast.
            validation: other series, by which the weights are chosen; None keeps the last horizon of
                each of `data` for that.
            strategy: "lora", small matrices beside query and value projections, or "full".
            rank: of LoRA's matrices.
            learning_rate: None takes one that goes with the model's width.
            context: tokens of a window, at most; None as many as the model reads.
            batch: windows of a step.
            steps: of AdamW, warmed up, then falling along a cosine.
            budget: FLOPs that may be spent; a run that would take more is refused before it starts.
            directory: receives the run, from which the same call goes on if it is stopped, and
                `model/`, which `load_text` reads; with LoRA also `adapter/`, the matrices alone.
            progress: tell the cost and the log on standard error; None does in a terminal.

        Returns:
            A forecaster with the better weights; `outcome` says how much better. This one stays as it
            is.

        Raises:
            DataError: says what is wrong with the data or the request, and how to mend it.
            CheckpointError: if `directory` holds another run.
        """
        try:
            from llamacast.text.tuning import tune  # needs lightning-fabric and PEFT
        except ModuleNotFoundError as error:
            raise needs("fine-tuning", "text", error) from error
        panel = _read(data, columns)
        other = None if validation is None else _read(validation, columns)
        options = {
            "horizon": horizon,
            "strategy": strategy,
            "rank": rank,
            "learning_rate": learning_rate,
            "context": context,
            "batch": batch,
            "steps": steps,
            "seed": seed,
            "budget": budget,
        }
        language, outcome = tune(self.language, panel, other, options, directory, progress)
        return TextForecaster(language, outcome)

    def save(
        self, path: str | os.PathLike[str], dtype: Literal["float32", "float16"] = "float32"
    ) -> None:
        """Write a folder that `load_text` reads: weights, tokenizer if any, how numbers are written."""
        self.language.save(Path(path), DTYPES[dtype])

    def _prompt(self, system: NamedSystem, horizon: int, text: str) -> Prompt:
        writing = self.language.writing(len(system.series))
        room = self.language.settings.longest
        room -= horizon * len(system.series) * writing.grammar.longest_number
        codec = self._choose(system.values, system.name)
        before = self.language.read_text(text)
        return write_prompt(system.values, codec, writing, room, before, system.name)

    def _choose(self, history: System, name: str) -> CodecConfig:
        """The way of writing under which the history's tail is likeliest, or the first that can."""
        settings = self.language.settings
        possible = [one for one in settings.codecs if usable(history, len(history), one)]
        num_tail = min(LONGEST_TAIL, int(len(history) * TAIL_SHARE))
        num_known = len(history) - num_tail
        known = np.isfinite(history)
        judges = bool(known[:num_known].any(axis=0).all() and known[num_known:].any())
        judges = judges and num_tail >= FEWEST_STEPS
        judges = judges and self._steps_read(history.shape[1]) >= num_tail + FEWEST_STEPS
        if settings.prefers == "first" or len(possible) <= 1 or not judges:
            return (possible or settings.codecs)[0]
        judged = [
            np.nanmean(self._density(history, num_known, one, name)[num_known:]) for one in possible
        ]
        return possible[int(np.argmax(np.nan_to_num(judged, nan=-np.inf)))]

    def _density(self, system: System, num_known: int, codec: CodecConfig, name: str) -> System:
        """Logarithms of the density of each value, `(step, channel)`; NaN before what can be read at
        once, and for the first."""
        num_channels = system.shape[1]
        writing = self.language.writing(num_channels)
        scales = [fit(system[:num_known, one], codec, name) for one in range(num_channels)]
        units, written = encode(system, scales)
        first = max(0, len(units) - self._steps_read(num_channels))
        tokens = writing.encode(units[first:])
        (chances,) = log_probabilities(self.language, [tokens], num_channels)
        found = np.full(system.shape, np.nan)
        found[first:] = chances.reshape(-1, num_channels)
        for one, scale in enumerate(scales):
            found[:, one] += scale.log_density(system[:, one], written[one])
        lost = np.stack([np.isinf(one.excess) for one in written], axis=1)
        found[lost] = -np.inf
        return found

    def _steps_read(self, num_channels: int) -> int:
        """Steps that surely fit into what the model reads at once."""
        longest_number = self.language.writing(num_channels).grammar.longest_number
        return self.language.settings.longest // (num_channels * longest_number)

    def _parts(
        self,
        systems: Sequence[NamedSystem],
        prompts: Sequence[Prompt],
        horizon: int,
        num_samples: int,
        memory_bytes: int,
    ) -> Iterator[tuple[list[int], slice]]:
        """Systems, and which of their samples, that are forecast at a time: of as many channels, nearly
        as long, within memory."""
        config = self.language.model.config
        head_width = getattr(config, "head_dim", None)
        head_width = head_width or config.hidden_size // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
        token_bytes = (
            2 * config.num_hidden_layers * heads * head_width * self.language.model.dtype.itemsize
        )

        def size(one: int) -> tuple[int, int]:
            return len(systems[one].series), len(prompts[one].ids)

        part: list[int] = []
        for one in sorted(range(len(systems)), key=size):
            channels, length = size(one)
            grammar = self.language.writing(channels).grammar
            row = (length + horizon * channels * grammar.longest_number) * token_bytes
            at_once = max(1, int(memory_bytes // row))
            if part and ((len(part) + 1) * num_samples > at_once or size(part[0])[0] != channels):
                yield part, slice(0, num_samples)
                part = []
            if at_once < num_samples:
                for first in range(0, num_samples, at_once):
                    yield [one], slice(first, min(num_samples, first + at_once))
                continue
            part.append(one)
        if part:
            yield part, slice(0, num_samples)


def load_text(
    model: str | os.PathLike[str] = "digits",
    *,
    device: str = "auto",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    codec: CodecConfig | None = None,
) -> TextForecaster:
    """Load a language model as a forecaster.

    Args:
        model: "digits", the packaged decoder; a folder, saved or of Hugging Face's (Qwen2.5-0.5B,
            Qwen2.5-0.5B-Instruct, ...); or such a model's name on the hub, which needs a network.
        device: "auto" (cuda where it is there), "cpu", "cuda".
        dtype: of the weights.
        codec: how numbers are written; None takes the folder's own way, or digits with separators.

    Raises:
        CheckpointError: if there is no such model, or its files are damaged.
        DataError: if the device is not there, or the tokenizer puts digits together.
    """
    return TextForecaster(load_language(str(model), device, dtype, codec))


def _read(data: Table | Panel, columns: ColumnNames) -> Panel:
    panel = read_panel(data, **columns)
    if panel.covariates is not None:
        raise DataError(
            "a language model takes no covariates; say what matters in text=, or leave them out"
        )
    return panel


def _texts(
    text: str | Mapping[Any, str], systems: Sequence[NamedSystem], panel: Panel
) -> list[str]:
    """The text before each system."""
    if isinstance(text, str):
        return [text] * len(systems)
    told = {str(name): one for name, one in text.items()}
    unknown = told.keys() - {system.name for system in systems}
    if unknown:
        kind = "series" if panel.groups is None else "group"
        raise DataError(f"text is given for {sorted(unknown)[0]!r}, and there is no such {kind}")
    return [told.get(system.name, "") for system in systems]
