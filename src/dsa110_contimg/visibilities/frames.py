"""Which frame of the sky directions in a Measurement Set are in."""

from __future__ import annotations

from pathlib import Path

from dsa110_contimg.visibilities.measurement_set import reading

__all__ = ["phase_frame"]


def phase_frame(ms_path: Path) -> str:
    """Name the frame of the phase centres: ICRS, or J2000 whatever else the table says.

    They are told apart by 20 milliarcseconds, which matters where model visibilities of two programs are
    compared and nowhere else.
    """
    with reading(ms_path / "FIELD") as sub:
        info = sub.getcolkeywords("PHASE_DIR").get("MEASINFO", {})
        if "VarRefCol" in info and info["VarRefCol"] in sub.colnames():
            codes = dict(zip(info.get("TabRefCodes", []), info.get("TabRefTypes", []), strict=True))
            frames = {str(codes.get(code, code)) for code in sub.getcol(info["VarRefCol"])}
            return "ICRS" if frames == {"ICRS"} else "J2000"
    return "ICRS" if str(info.get("Ref", "J2000")) == "ICRS" else "J2000"
