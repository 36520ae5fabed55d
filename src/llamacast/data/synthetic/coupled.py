"""Systems of several quantities that drive each other: predators and prey, oscillators, epidemics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from llamacast.data.synthetic.chaotic import integrate
from llamacast.data.synthetic.draws import Rng, Rows, chance, log_uniform

Systems = npt.NDArray[np.float64]
"""Shape `(system, step, channel)`."""

STEPS_PER_CYCLE = 8.0, 60.0
"""Fewest and most samples in what would be one turn of a system near its rest."""
SHARE_NOISY = 0.35
"""Of systems that are measured with errors."""
_MOST_ATTEMPTS = 200
_LARGEST, _SMALLEST = 1e6, 1e-7


def coupled(rng: Rng, num_systems: int, num_steps: int, num_channels: int) -> Systems:
    """Systems of ordinary differential equations with drawn parameters, from a random start on.

    Lotka and Volterra, 1920s, with limits to growth and sated predators (Rosenzweig and MacArthur,
    1963), two to three species; van der Pol, 1926; FitzHugh, 1961; Prigogine's Brusselator, 1968;
    Duffing, 1918; epidemics with waning immunity (Kermack and McKendrick, 1927); linear oscillators,
    damped and growing; Lorenz, 1963. Those of populations are positive. Systems with more channels
    than asked for show some of them; fewer channels than asked for are not made.
    """
    families = [make for channels, make in FAMILIES if channels >= num_channels]
    weights = np.array([WEIGHTS.get(make.__name__, 1.0) for make in families])
    counts = rng.multinomial(num_systems, weights / weights.sum())
    made = [
        _sound(rng, make, int(count), num_steps, num_channels)
        for make, count in zip(families, counts, strict=True)
        if count
    ]
    systems = np.concatenate(made)
    rng.shuffle(systems)
    return systems


def _sound(rng: Rng, make: Callable[..., Rows], count: int, steps: int, channels: int) -> Systems:
    """Systems of one family; those that ran away, died out or stood still are drawn again."""
    found: list[Systems] = []
    missing = count
    for _ in range(_MOST_ATTEMPTS):
        with np.errstate(all="ignore"):
            rows = np.moveaxis(make(rng, 2 * missing + 8, steps), 0, -1)
        size = np.abs(rows).max(axis=(1, 2))
        spread = rows.max(axis=1) - rows.min(axis=1)
        good = np.isfinite(rows).all(axis=(1, 2)) & (size < _LARGEST)
        good &= (spread > 1e-3 * size[:, None]).all(axis=1)
        # What is positive at all stays well above zero, so that it has logarithms.
        least = rows.min(axis=(1, 2))
        good &= (least > _SMALLEST) | (rows.min(axis=(1, 2)) < -1e-3 * size)
        chosen = rows[good][:missing]
        kept = rng.permutation(rows.shape[2])[:channels]
        found.append(_measured(rng, chosen[:, :, kept]))
        missing -= len(chosen)
        if not missing:
            return np.concatenate(found)
    raise AssertionError(f"{make.__name__} makes hardly any system that can be used")


def _measured(rng: Rng, systems: Systems) -> Systems:
    """In other units, and some with errors: relative ones where a system is positive."""
    shape = len(systems), 1, systems.shape[2]
    systems = systems * log_uniform(rng, 0.1, 10.0, shape)
    noise = rng.standard_normal(systems.shape) * log_uniform(rng, 0.003, 0.1, shape)
    noise = noise * chance(rng, SHARE_NOISY, (len(systems), 1, 1))
    positive = (systems > 0).all(axis=(1, 2), keepdims=True)
    deviation = systems.std(axis=1, keepdims=True)
    return np.where(positive, systems * np.exp(noise), systems + noise * deviation)


def _run(field: Callable[[Rows], Rows], start: Rows, step: Rows, num_steps: int) -> Rows:
    return integrate(field, start, step, num_steps, transient=0)


def _step(rng: Rng, turn: Rows | float, count: int) -> Rows:
    """Time between samples, where a turn takes so long."""
    return turn / log_uniform(rng, *STEPS_PER_CYCLE, count)


def predator_prey(rng: Rng, count: int, num_steps: int) -> Rows:
    """`x' = x (1 - x / K - y / (1 + h x))`, `y' = c y (x / (1 + h x) - m - e y)`, in logarithms.

    Limits to prey (`K`) and quarrels of predators (`e`) damp; satiety (`h`) makes swings grow; without
    any of them they go round for ever.
    """
    pace = log_uniform(rng, 0.1, 2.0, count)
    death = log_uniform(rng, 0.2, 2.0, count)
    satiety = rng.uniform(0, 0.6, count) * chance(rng, 0.6, count) / np.maximum(death, 0.3)
    crowding = log_uniform(rng, 0.002, 0.4, count) * chance(rng, 0.75, count)
    quarrel = log_uniform(rng, 0.002, 0.2, count) * chance(rng, 0.3, count)

    def field(state: Rows) -> Rows:
        prey, predators = np.exp(np.clip(state, -25, 15))
        eaten = 1 / (1 + satiety * prey)
        return np.stack(
            [
                1 - crowding * prey - predators * eaten,
                pace * (prey * eaten - death - quarrel * predators),
            ]
        )

    rest = np.log(np.stack([death / np.maximum(1 - satiety * death, 0.1), np.ones(count)]))
    start = rest + rng.uniform(-1.2, 1.2, (2, count))
    turn = 2 * np.pi / np.sqrt(pace * death)
    return np.exp(_run(field, start, _step(rng, turn, count), num_steps))


def food_chain(rng: Rng, count: int, num_steps: int) -> Rows:
    """Three species, each eaten by the next; or two that compete and one that eats both."""
    rates = log_uniform(rng, 0.3, 1.5, (3, count))
    links = log_uniform(rng, 0.3, 1.5, (4, count))
    crowding = log_uniform(rng, 0.01, 0.5, count)
    shared = chance(rng, 0.5, count)

    def field(state: Rows) -> Rows:
        low, middle, top = np.exp(np.clip(state, -25, 15))
        chain = np.stack(
            [
                rates[0] - crowding * low - links[0] * middle,
                links[1] * low - rates[1] - links[2] * top,
                links[3] * middle - rates[2],
            ]
        )
        rivals = np.stack(
            [
                rates[0] - crowding * (low + 0.5 * middle) - links[0] * top,
                rates[1] - crowding * (middle + 0.5 * low) - links[2] * top,
                links[1] * low + links[3] * middle - rates[2] * 2,
            ]
        )
        return np.where(shared, rivals, chain)

    start = rng.uniform(-1, 1, (3, count))
    return np.exp(_run(field, start, _step(rng, 8.0, count), num_steps))


def linear_oscillator(rng: Rng, count: int, num_steps: int) -> Rows:
    """A rotation that shrinks or grows, seen from two sides; often about a level above zero."""
    turn = 2 * np.pi / log_uniform(rng, *STEPS_PER_CYCLE, count)
    growth = rng.normal(0, 0.01, count)
    clock = np.arange(num_steps)
    lag = rng.uniform(0, 2 * np.pi, (2, count))
    waves = np.cos(turn[:, None] * clock + lag[..., None]) * np.exp(growth[:, None] * clock)
    reach = np.abs(waves).max(axis=(0, 2))[:, None] * log_uniform(rng, 1.05, 4.0, count)[:, None]
    return waves + np.where(chance(rng, 0.5, count)[:, None], reach, 0.0)


def two_waves(rng: Rng, count: int, num_steps: int) -> Rows:
    """Two coupled springs, each seen by where it is: beats."""
    pull, link, friction = log_uniform(rng, 0.05, 1.0, (3, count)) * [[1], [0.5], [0.05]]

    def field(state: Rows) -> Rows:
        one, other, speed, other_speed = state
        between = link * (one - other)
        return np.stack(
            [
                speed,
                other_speed,
                -pull * one - between - friction * speed,
                -pull * other + between - friction * other_speed,
            ]
        )

    start = rng.standard_normal((4, count))
    turn = 2 * np.pi / np.sqrt(pull)
    return _run(field, start, _step(rng, turn, count), num_steps)[:2]


def van_der_pol(rng: Rng, count: int, num_steps: int) -> Rows:
    stiffness = log_uniform(rng, 0.1, 4.0, count)

    def field(state: Rows) -> Rows:
        place, speed = state
        return np.stack([speed, stiffness * (1 - place**2) * speed - place])

    start = rng.uniform(-2, 2, (2, count))
    return _run(field, start, _step(rng, 2 * np.pi + stiffness, count), num_steps)


def fitzhugh(rng: Rng, count: int, num_steps: int) -> Rows:
    """A nerve's potential and its recovery, firing or at rest."""
    drive = rng.uniform(0.0, 1.2, count)
    slow = log_uniform(rng, 0.04, 0.3, count)

    def field(state: Rows) -> Rows:
        potential, recovery = state
        return np.stack(
            [
                potential - potential**3 / 3 - recovery + drive,
                slow * (potential + 0.7 - 0.8 * recovery),
            ]
        )

    start = rng.uniform(-1.5, 1.5, (2, count))
    return _run(field, start, _step(rng, 3.0 / slow, count), num_steps)


def brusselator(rng: Rng, count: int, num_steps: int) -> Rows:
    """A chemical clock: it settles below `b = 1 + a^2`, and ticks above."""
    a = rng.uniform(0.6, 1.4, count)
    b = (1 + a**2) * rng.uniform(0.7, 1.6, count)

    def field(state: Rows) -> Rows:
        x, y = state
        made = x**2 * y
        return np.stack([a + made - (b + 1) * x, b * x - made])

    start = np.stack([a, b / a]) * np.exp(rng.uniform(-0.7, 0.7, (2, count)))
    return _run(field, start, _step(rng, 2 * np.pi / a, count), num_steps)


def duffing(rng: Rng, count: int, num_steps: int) -> Rows:
    """A stiffening spring with friction; its place and its speed."""
    stiff, friction = log_uniform(rng, 0.1, 3.0, count), log_uniform(rng, 0.003, 0.2, count)
    pull = rng.choice([-1.0, 1.0], count)

    def field(state: Rows) -> Rows:
        place, speed = state
        return np.stack([speed, -friction * speed - pull * place - stiff * place**3])

    start = rng.uniform(-2, 2, (2, count))
    return _run(field, start, _step(rng, 6.0, count), num_steps)


def epidemic(rng: Rng, count: int, num_steps: int) -> Rows:
    """The susceptible and the ill, in logarithms; immunity wanes, so that waves follow each other."""
    spread, waning = log_uniform(rng, 1.3, 5.0, count), log_uniform(rng, 0.005, 0.1, count)

    def field(state: Rows) -> Rows:
        open_to_it, ill = np.exp(np.clip(state, -25, 3))
        back = waning * (1 - open_to_it - ill)
        return np.stack([back / open_to_it - spread * ill, spread * open_to_it - 1])

    start = np.log(np.stack([rng.uniform(0.2, 0.95, count), log_uniform(rng, 1e-3, 0.1, count)]))
    turn = 2 * np.pi / np.sqrt(waning * np.maximum(spread - 1, 0.1))
    return np.exp(_run(field, start, _step(rng, turn, count), num_steps))


def lorenz(rng: Rng, count: int, num_steps: int) -> Rows:
    """Settling to either side below about 24.7, and turbulent above."""
    drive = rng.uniform(8, 32, count)

    def field(state: Rows) -> Rows:
        x, y, z = state
        return np.stack([10 * (y - x), x * (drive - z) - y, x * y - 8 / 3 * z])

    start = rng.standard_normal((3, count)) * 4 + np.array([[0], [0], [15]])
    return _run(field, start, log_uniform(rng, 0.01, 0.06, count), num_steps)


FAMILIES: tuple[tuple[int, Callable[..., Rows]], ...] = (
    (2, predator_prey),
    (3, food_chain),
    (2, linear_oscillator),
    (2, two_waves),
    (2, van_der_pol),
    (2, fitzhugh),
    (2, brusselator),
    (2, duffing),
    (2, epidemic),
    (3, lorenz),
)
"""Channels of each family, and what makes it: `(channel, system, step)`."""
WEIGHTS = {"predator_prey": 6.0, "food_chain": 2.0, "linear_oscillator": 2.0}
