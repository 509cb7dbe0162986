"""From visibilities to images and back: the w-gridder of ducc0 with imaging weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import ducc0
import numba
import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.array_types import Float, Image, Int, Vis, Weight
from dsa110_contimg.errors import ImagingError
from dsa110_contimg.imaging.grid import ImageGrid
from dsa110_contimg.imaging.stokes import StokesI
from dsa110_contimg.imaging.weighting import Weighting, imaging_weights
from dsa110_contimg.predict import predict_components
from dsa110_contimg.visibilities.noise import NoiseScale

__all__ = ["Imager", "degrid"]

# Relative error of an image: near the smallest that ducc0 grants in single precision, 1e-5, and that of an
# image of noise alone and of a point spread function. At 5e-4 a source leaves 4e-5 of itself in other places.
EPSILON, EPSILON_OF_NOISE = 2e-5, 5e-4
#: Relative accuracy of predicted visibilities.
DEGRID_EPSILON = 2e-5

#: A model of so few components is summed up exactly, which is faster then than the transforms of a grid.
FEW_COMPONENTS = 100

# Chunks of the same rows are joined along frequency up to this size: each call costs transforms of the whole
# grid (0.26 s at 2048 pixels), as much as gridding a million visibilities.
JOIN_VISIBILITIES = 32_000_000


class Imager:
    """Dirty images, residuals and the point spread function of one set of visibilities.

    All images are float32, shape (size, size), in FITS order ``[y, x]`` with x to the west, in Jy/beam:
    divided by the sum of the imaging weights.

    Parameters
    ----------
    chunks : iterable of StokesI
        The data; referred to, not copied, except where chunks of the same rows or channels are joined. What
        an iterator gives is let go as it is joined.
    grid : ImageGrid
        Where to image.
    weighting : {"natural", "uniform", "briggs"}
        See `imaging_weights`.
    robust : float
        Briggs' parameter.
    threads : int
        Threads to use; 0 for all.
    noise : NoiseScale, optional
        Noise of the data: where they hold little else, images are less exact by what is far below it.
    incoherent : bool
        Whether the data are far from coherent, as before calibration: they are gridded as noise is.

    Raises
    ------
    ImagingError
        If there is no unflagged visibility, or a visibility, weight or baseline is not finite.
    ConfigError
        If the weighting is unknown.
    """

    def __init__(
        self,
        chunks: Iterable[StokesI],
        grid: ImageGrid,
        weighting: Weighting = "briggs",
        robust: float = 0.0,
        threads: int = 0,
        noise: NoiseScale | None = None,
        incoherent: bool = False,
    ) -> None:
        self.grid = grid
        self.threads = threads
        given = 0

        def usable() -> Iterator[StokesI]:
            nonlocal given
            for chunk in chunks:
                _require_finite(chunk, given)
                given += 1
                if chunk.weight.any():
                    yield chunk

        joined = list(_join_rows(_join(usable())))
        self._weights = imaging_weights(joined, grid, weighting, robust)
        sums = [_sums(weight, chunk.precision) for weight, chunk in zip(self._weights, joined, strict=True)]
        self.sum_of_weights = math.fsum(total for total, _ in sums)
        """Sum of the imaging weights."""
        self._sum_variance = math.fsum(variance for _, variance in sums)
        if not self.sum_of_weights > 0:
            raise ImagingError(
                "no unflagged visibility is left" if not joined else "cell too large",
                f"{given} visibility chunks",
                "check the flags and the selection of fields and spectral windows, or the cell",
            )
        self._epsilon = EPSILON_OF_NOISE if incoherent else EPSILON
        if not incoherent and noise is not None and noise.known:
            power = math.fsum(_power(w, chunk.vis) for w, chunk in zip(self._weights, joined, strict=True))
            # The error is a part of the whole image: of noise alone it may be larger.
            of_noise = noise.variance * self._sum_variance / power if power > 0 else 1.0
            self._epsilon = max(EPSILON, EPSILON_OF_NOISE * min(of_noise, 1.0))
        # Weights and baselines as they came are not needed any more: millions of visibilities take room.
        self._data = [(np.ascontiguousarray(chunk.uvw), chunk.freq_hz, chunk.vis) for chunk in joined]
        self._psf: Image | None = None
        self.griddings = 0
        """Images gridded so far."""

    def psf(self) -> Image:
        """Point spread function, exactly 1 at the central pixel; computed once, read-only."""
        if self._psf is None:
            image = self._image(None)
            image /= image[self.grid.center, self.grid.center]
            image.flags.writeable = False
            self._psf = image
        return self._psf

    def share_psf(self, psf: Image) -> None:
        """Take a point spread function that was made at the same weights, read-only."""
        self._psf = psf

    @cached_property
    def weights_digest(self) -> str:
        """Digest of the imaging weights: images of the same data for which it is the same share their psf."""
        digest = hashlib.blake2b(digest_size=16)
        for weight in self._weights:
            digest.update(np.ascontiguousarray(weight).data)
        return digest.hexdigest()

    def dirty(self) -> Image:
        """Image of the data, Jy/beam."""
        return self._image(np.zeros((0, 0), np.float32))

    def dirty_model_subtracted(self, model_image: Image) -> Image:
        """Image of the data minus the visibilities of a model image, Jy/beam.

        Parameters
        ----------
        model_image : ndarray, float32, shape (size, size)
            Jy/pixel on the imager's own grid.

        Raises
        ------
        ImagingError
            If the model has another shape or is not finite.
        """
        if model_image.shape != (self.grid.size, self.grid.size) or not np.isfinite(model_image).all():
            raise ImagingError(
                f"model of shape {model_image.shape} is not finite or not {self.grid.size} pixels square",
                "model image",
            )
        return self._image(model_image)

    def thermal_rms(self, noise_scale: float) -> float:
        """Rms of the image of pure thermal noise, Jy/beam, from the weights alone.

        ``sqrt(sum w_img^2 sigma^2) / sum w_img`` with ``sigma^2 = noise_scale^2 / weight`` the variance of
        the real part (and of the imaginary part) of each visibility.

        Parameters
        ----------
        noise_scale : float
            Measured noise of a visibility of weight one, Jy: 1 where weights are true inverse variances.
        """
        return noise_scale * math.sqrt(self._sum_variance) / self.sum_of_weights

    def _image(self, model: Image | None) -> Image:
        """Image of the data minus a model; of ones if that is None; of the data if it is empty."""
        self.griddings += 1
        total = np.zeros((self.grid.size, self.grid.size))
        epsilon = max(self._epsilon, EPSILON_OF_NOISE) if model is None else self._epsilon
        common = _convention(self.grid, epsilon, self.threads)
        part = np.empty((self.grid.size, self.grid.size), np.float32)
        try:
            for (uvw, freq, data), weight in zip(self._data, self._weights, strict=True):
                if model is None:
                    vis = np.broadcast_to(np.complex64(1), data.shape)
                elif model.any():
                    vis = _predicted(model, self.grid, uvw, freq, common)
                    np.subtract(data, vis, out=vis)
                else:
                    vis = data
                ducc0.wgridder.vis2dirty(
                    uvw=uvw,
                    freq=freq,
                    vis=vis,
                    wgt=weight,
                    dirty=part.T,
                    double_precision_accumulation=epsilon < EPSILON_OF_NOISE,
                    **common,
                )
                total += part
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ImagingError(f"the gridder failed: {reason}", "embedded imager") from error
        total /= self.sum_of_weights
        return total.astype(np.float32)


def degrid(image: Image, grid: ImageGrid, uvw: Float, freq_hz: Float, threads: int = 0) -> Vis:
    """Visibilities of an image about its phase centre, exact at the pixels' centres.

    Parameters
    ----------
    image : ndarray of float32, shape (size, size)
        Jansky per pixel.
    grid : ImageGrid
        Where the pixels are.
    uvw : ndarray, shape (nrow, 3)
        Baselines in metres about the phase centre.
    freq_hz : ndarray, shape (nchan,)
        Frequencies in hertz.
    threads : int
        Threads; 0 for all.

    Returns
    -------
    ndarray of complex64, shape (nrow, nchan)
        Stokes I in jansky.
    """
    common = _convention(grid, DEGRID_EPSILON, threads)
    return _degridded(image, np.ascontiguousarray(uvw), freq_hz, common)


def _predicted(model: Image, grid: ImageGrid, uvw_m: Float, freq_hz: Float, common: dict[str, Any]) -> Vis:
    """Visibilities of a model: few components are summed up one by one."""
    row, column = np.nonzero(model)
    if row.size > FEW_COMPONENTS:
        return _degridded(model, uvw_m, freq_hz, common)
    l, m = grid.pixel_to_lm(column, row)  # noqa: E741
    square = l**2 + m**2
    lmn = np.stack([l, m, -square / (1 + np.sqrt(1 - square))], axis=1)
    flux = np.repeat(model[row, column][:, None], freq_hz.size, axis=1)
    return predict_components(uvw_m, freq_hz, lmn, flux)


def _degridded(image: Image, uvw_m: Float, freq_hz: Float, common: dict[str, Any]) -> Vis:
    # The gridder takes frequencies that rise.
    order = np.argsort(freq_hz, kind="stable")
    vis = ducc0.wgridder.dirty2vis(uvw=uvw_m, freq=freq_hz[order], dirty=image.T, **common)
    return np.asarray(vis[:, np.argsort(order)], dtype=np.complex64)


def _require_finite(chunk: StokesI, number: int) -> None:
    bad = _count_bad(chunk.vis, chunk.weight)
    if bad or not np.isfinite(chunk.uvw).all() or not np.isfinite(chunk.freq_hz).all():
        raise ImagingError(
            f"{bad} of {chunk.vis.size} visibilities are not finite or have a bad weight"
            if bad
            else "baselines or frequencies are not finite",
            f"visibility chunk {number}",
            "flag them before imaging",
        )


def _convention(grid: ImageGrid, epsilon: float, threads: int) -> dict[str, Any]:
    """Options of ducc0 for the sign of the Measurement Set and images with x to the west.

    Images are handed over transposed, for ducc0 has them as [x, y] where FITS has [y, x]. Flipping y turns
    exp(-2 pi i) into that sign; x is not flipped.
    """
    return {
        "pixsize_x": grid.cell_rad,
        "pixsize_y": grid.cell_rad,
        "epsilon": epsilon,
        "do_wgridding": True,
        "nthreads": threads,
        "flip_v": True,
        "divide_by_n": False,
    }


def _join(chunks: Iterable[StokesI]) -> Iterator[StokesI]:
    """Join neighbours with the same baselines along frequency, up to `JOIN_VISIBILITIES`; sort channels."""
    for group in _groups(chunks, lambda one, other: np.array_equal(one.uvw, other.uvw)):
        freq = np.concatenate([chunk.freq_hz for chunk in group])
        # ducc0 takes ascending frequencies alone; lower sidebands come in descending order.
        order = np.argsort(freq, kind="stable")
        if len(group) == 1 and (np.diff(order) > 0).all():
            yield group[0]
        else:
            yield _stacked(group, group[0].uvw, freq[order], axis=1, order=order)


def _join_rows(chunks: Iterable[StokesI]) -> Iterator[StokesI]:
    """Join neighbours of the same channels along rows, up to `JOIN_VISIBILITIES`: dumps of a drift scan."""
    for group in _groups(chunks, lambda one, other: np.array_equal(one.freq_hz, other.freq_hz)):
        if len(group) == 1:
            yield group[0]
        else:
            uvw = np.concatenate([chunk.uvw for chunk in group])
            yield _stacked(group, uvw, group[0].freq_hz, axis=0)


def _groups(chunks: Iterable[StokesI], fits: Callable[[StokesI, StokesI], bool]) -> Iterator[list[StokesI]]:
    """Group neighbours that fit to the first of them; what was taken is not held any longer."""
    group: list[StokesI] = []
    for chunk in chunks:
        size = chunk.vis.size + sum(c.vis.size for c in group)
        if group and not (size <= JOIN_VISIBILITIES and fits(group[0], chunk)):
            yield group
            group = []
        group.append(chunk)
    if group:
        yield group


def _stacked(
    group: Sequence[StokesI], uvw_m: Float, freq_hz: Float, *, axis: int, order: Int | None = None
) -> StokesI:
    """Put chunks side by side along an axis, and that axis into another order."""

    def stacked(parts: list[NDArray[Any]]) -> NDArray[Any]:
        whole = np.concatenate(parts, axis=axis)
        return whole if order is None or (np.diff(order) > 0).all() else np.take(whole, order, axis=axis)

    precision = None
    if any(chunk.inverse_variance is not None for chunk in group):
        precision = stacked([chunk.precision for chunk in group])
    vis, weight = stacked([chunk.vis for chunk in group]), stacked([chunk.weight for chunk in group])
    return StokesI(uvw_m, freq_hz, vis, weight, precision)


@numba.njit(nogil=True, cache=True)
def _count_bad(vis: Vis, weight: Weight) -> int:
    bad = 0
    for row in range(vis.shape[0]):
        for chan in range(vis.shape[1]):
            v = vis[row, chan]
            w = weight[row, chan]
            if not (np.isfinite(v.real) and np.isfinite(v.imag) and np.isfinite(w) and w >= 0):
                bad += 1
    return bad


@numba.njit(nogil=True, cache=True)
def _sums(imaging: Weight, weight: Weight) -> tuple[float, float]:
    """Sum of the imaging weights, and of their squares over the natural weights."""
    total = 0.0
    variance = 0.0
    for row in range(weight.shape[0]):
        for chan in range(weight.shape[1]):
            if weight[row, chan] > 0:
                w = np.float64(imaging[row, chan])
                total += w
                variance += w * w / weight[row, chan]
    return total, variance


@numba.njit(nogil=True, cache=True)
def _power(imaging: Weight, vis: Vis) -> float:
    """Sum of the squares of weighted visibilities."""
    total = 0.0
    for row in range(vis.shape[0]):
        for chan in range(vis.shape[1]):
            w, v = np.float64(imaging[row, chan]), vis[row, chan]
            total += w * w * (v.real * v.real + v.imag * v.imag)
    return total
