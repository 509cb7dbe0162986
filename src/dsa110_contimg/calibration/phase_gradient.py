"""How far gains move the sky: the phase gradient that they have in common over the array.

A shift of the sky by (l, m) is a phase ``2 pi (u_a l + v_a m)`` at every antenna a, which gains can hold as
well as a sky model can. Where the antenna phases add up best after such a gradient is taken out is where the
sky was before them: the image of the antennas' phasors has its peak there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.optimize

from dsa110_contimg.array_types import Bool, Complex, Float
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT

__all__ = ["PhaseGradient", "delay_gradient", "phase_gradient"]

#: Pixels along a side of the image of the antennas' phasors, and in its resolution.
PIXELS, OVERSAMPLING = 1024, 4.0


@dataclass(frozen=True)
class PhaseGradient:
    """The gradient that gain phases have in common.

    Attributes
    ----------
    shift_rad : (float, float)
        By how much the gains move the sky when they are applied, in l (east) and m (north), radians.
    error_rad : float
        Standard error of each, of antenna phases that scatter independently about the gradient; infinite
        where too few antennas are solved.
    coherence : float
        Mean over time of |sum of unit gains| over their number, the gradient taken out: one for equal
        phases, about the root of one over the number for random ones.
    coherence_as_is : float
        The same with the gradient in.
    n_antennas : int
        Antennas in it.
    """

    shift_rad: tuple[float, float]
    error_rad: float
    coherence: float
    coherence_as_is: float
    n_antennas: int

    @property
    def chance(self) -> float:
        """Upper bound of the probability that random phases add up so well at some place of the image."""
        n, r = self.n_antennas, self.coherence
        places = (PIXELS / OVERSAMPLING) ** 2
        # Rayleigh's law, and the volume of the phases that differ by as little where they hardly do.
        return float(places * min(np.exp(-n * r**2), (2 * (1 - r)) ** ((n - 1) / 2)))


def phase_gradient(gain: Complex, solved: Bool, uv_wavelengths: Float) -> PhaseGradient:
    """Fit the phase gradient over the array.

    Parameters
    ----------
    gain : ndarray of complex128, shape (ntime, nant, npol)
        Gains: corrected = V / (g_i conj(g_j)).
    solved : ndarray of bool, same shape
        Where there are gains.
    uv_wavelengths : ndarray, shape (ntime, nant, 2)
        Antenna coordinates u and v in wavelengths, against any origin: a baseline's are those of its second
        antenna less those of its first.

    Returns
    -------
    PhaseGradient
    """
    used = solved & (np.abs(gain) > 0) & np.isfinite(uv_wavelengths).all(axis=2, keepdims=True)
    uv_wavelengths = np.nan_to_num(uv_wavelengths)
    unit = np.where(used, gain / np.where(used, np.abs(gain), 1.0), 0.0)
    count = used.sum(axis=1)
    n = int(count.max(initial=0))
    if n < 3:
        return PhaseGradient((0.0, 0.0), float("inf"), 0.0, 0.0, n)

    def coherence(shift: Float) -> float:
        """Mean over time and polarisation of what adds up once a shift is taken out."""
        turn = np.exp(-2j * np.pi * (uv_wavelengths @ shift))
        total = np.abs((unit * turn[:, :, None]).sum(axis=1))
        return float((total / np.maximum(count, 1))[count > 0].mean())

    start = _brightest_pixel(unit, uv_wavelengths)
    spread = uv_wavelengths - uv_wavelengths.mean(axis=1, keepdims=True)
    extent = float(np.sqrt((spread**2).mean()))
    scale = 0.1 / max(extent, 1e-9)
    trials = [np.zeros(2), start]
    best = max(trials, key=coherence)
    found = scipy.optimize.minimize(
        lambda x: -coherence(best + scale * x), np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-4}
    )
    shift = best + scale * found.x
    at_best = coherence(shift)
    # |mean of exp(i x)| is exp(-s2 / 2) for phases that scatter by s about their mean.
    scatter = np.sqrt(-2 * np.log(np.clip(at_best, 1e-6, 1 - 1e-9)))
    error = float(scatter / (2 * np.pi * max(extent, 1e-9) * np.sqrt(n)))
    return PhaseGradient((float(shift[0]), float(shift[1])), error, at_best, coherence(np.zeros(2)), n)


def delay_gradient(tables: Sequence[GainTable], uv_m: Float) -> PhaseGradient | None:
    """Fit the gradient of the delays over the array: that of a sky that was elsewhere.

    Phases of antennas may be anything, and hold a shift of the sky as well as their own errors. Delays hold
    it too, and add up to it only if it is there.

    Parameters
    ----------
    tables : sequence of GainTable
        Delays or bandpass of all windows; the first table counts.
    uv_m : ndarray, shape (ntime, nant, 2)
        Antenna coordinates u and v in metres.

    Returns
    -------
    PhaseGradient or None
        None without a table, or one of one frequency.
    """
    if not tables:
        return None
    gains = sorted(tables[0].gains.values(), key=lambda g: float(g.freq_hz.min()))
    low, high = gains[0], gains[-1]
    first, last = int(np.argmin(low.freq_hz)), int(np.argmax(high.freq_hz))
    apart = float(high.freq_hz[last] - low.freq_hz[first])
    if not apart > 0:
        return None
    turned = high.gain[:1, :, last] * np.conj(low.gain[:1, :, first])
    solved = ~(high.flag[:1, :, last] | low.flag[:1, :, first])
    middle = uv_m[len(uv_m) // 2]
    return phase_gradient(turned, solved, middle[None] * apart / SPEED_OF_LIGHT)


def _brightest_pixel(unit: Complex, uv: Float) -> Float:
    """Where the image of the antennas' phasors is brightest, radians, shape (2,)."""
    reach = float(np.abs(uv - uv.mean(axis=1, keepdims=True)).max())
    # The field of the image is the inverse of the cell in uv; cells hold all antennas within PIXELS.
    cell = 2 * reach / (PIXELS / OVERSAMPLING)
    # The power of all times together is one transform, of the products of all pairs of antennas.
    pairs = np.zeros(PIXELS * PIXELS, dtype=np.complex128)
    for t in range(unit.shape[0]):
        place = np.rint((uv[t] - uv[t].mean(axis=0)) / cell).astype(int)
        x, y = np.moveaxis((place[:, None] - place[None, :]) % PIXELS, 2, 0)
        product = (unit[t] @ unit[t].conj().T).ravel()
        cells = (x * PIXELS + y).ravel()
        pairs.real += np.bincount(cells, product.real, pairs.size)
        pairs.imag += np.bincount(cells, product.imag, pairs.size)
    power = scipy.fft.fft2(pairs.reshape(PIXELS, PIXELS), workers=-1).real
    peak = np.array(np.unravel_index(int(np.argmax(power)), power.shape))
    peak = np.where(peak >= PIXELS // 2, peak - PIXELS, peak)
    return np.asarray(peak / (PIXELS * cell))
