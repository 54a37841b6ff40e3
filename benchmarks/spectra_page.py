"""The results of spectra.py for reading."""

from typing import Any


def markdown(result: dict[str, Any]) -> str:
    """The same for reading."""
    norms = [result[part] for part in ("heads", "one_head") if part in result]
    sections = ["# Spectra and matrix-free attention", *(origin(result[part]) for part in result)]
    if norms:
        sections += [norm_table(norms), peer_table(norms)]
    if "matrix_free" in result:
        sections.append(free_table(result["matrix_free"]))
    return "\n\n".join(sections) + "\n"


def origin(part: dict[str, Any]) -> str:
    cpu = f"{part['machine']['cpu']}, {part['machine']['cores']} cores, shared with other work"
    return f"`{part['command']}`, OPENBLAS_NUM_THREADS {part['blas_threads']}, {cpu}; {part['date']}."


def norm_table(parts: list[dict[str, Any]]) -> str:
    lines = [
        "sqrt(lambda) = ||JA||: numpy's SVD, our Lanczos estimate, and our certified upper bound (products alone).",
        "Seconds are medians [least, largest] of interleaved rounds in one process; times faster is numpy's time over",
        "ours, by medians (by least processor time over all threads). Arithmetic is ours; errors are against numpy's",
        "float64 SVD of the float64 matrix, and numpy is timed in our arithmetic's precision and in float64.",
        "",
        "| heads | arithmetic | numpy | ours | certified | times faster | than float64 numpy | error against it "
        "| certified: times faster | excess |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for part in parts:
        for precision in ("float64", "float32"):
            found = part[precision]
            sides = ("numpy", "ours", "certified")
            times = " | ".join(spread(found["seconds"][side]) if side in found["seconds"] else "" for side in sides)
            both = ratios(found["times_faster"]), ratios(found["times_faster_than_float64"])
            faster = f"{both[0]} | {both[1]} | {found['relative_error']:.1e}"
            bound = " | "
            if "certified_excess" in found:
                bound = f"{ratios(found['times_faster_certified'])} | {found['certified_excess']:.1e}"
            lines.append(f"| {part['heads']} x {part['tokens']} | {precision} | {times} | {faster} | {bound} |")
    return "\n".join(lines)


def peer_table(parts: list[dict[str, Any]]) -> str:
    lines = [
        "The same value by other routines, in the same rounds and arithmetic; errors as above.",
        "",
        "| heads | arithmetic | routine | seconds | times faster | its error |",
        "|---|---|---|---|---|---|",
    ]
    for part in parts:
        for precision in ("float64", "float32"):
            for peer, found in part[precision]["peers"].items():
                seconds = spread(part[precision]["seconds"][peer])
                lines.append(
                    f"| {part['heads']} x {part['tokens']} | {precision} | {peer} | {seconds} "
                    f"| {ratios(found['times_faster'])} | {found['relative_error']:.1e} |"
                )
    return "\n".join(lines)


def free_table(part: dict[str, Any]) -> str:
    lines = [
        f"softmax(QK^T / sqrt d) never formed, float32, d = {part['width']}: median seconds, and the rate of its",
        "multiplications over that of XLA's GEMM of a 2048 x 2048 matrix (square) and of the shapes of its own blocks.",
        "",
        "| tokens | apply, s | transposed, s | apply/square | /blocks | transposed/square | /blocks | MiB | A, MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in part["lengths"]:
        ways = ("apply", "transpose_apply")
        cells = [f"{row['seconds'][way]:.3g}" for way in ways]
        cells += [f"{row['share_of_gemm'][way][gemm]:.2f}" for way in ways for gemm in ("square", "blocks")]
        cells += [f"{row['peak_growth_mib']:.0f}", f"{row['the_matrix_mib']:,.0f}"]
        lines.append(f"| {row['tokens']:,} | {' | '.join(cells)} |")
    growth = ", ".join(f"{value:.2f}" for value in part["exponents"])
    return "\n".join(
        [*lines, "", f"Growth of the time of apply between neighbouring lengths, as a power of n: {growth}."]
    )


def ratios(faster: dict[str, float]) -> str:
    return f"{faster['median']:.3g} ({faster['processor']:.3g})"


def spread(seconds: dict[str, float]) -> str:
    return f"{seconds['median']:.3g} [{seconds['min']:.3g}, {seconds['max']:.3g}]"
