"""`sare-tf` and `python -m sare_tf`: lists the stages, or runs one of them."""

import difflib
import runpy
import sys

from sare_tf import __version__, flags


def main() -> None:
    """Runs the stage that the first argument names, or lists all stages."""
    if len(sys.argv) < 2 or sys.argv[1] in ("--help", "-h", "help"):
        sys.stdout.write(_overview())
        return
    if sys.argv[1] == "--version":
        sys.stdout.write(f"{__version__}\n")
        return
    stage = sys.argv[1].replace("-", "_")
    if stage not in flags.stage_names():
        close = difflib.get_close_matches(stage, flags.stage_names(), n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        sys.exit(
            f"Expected a stage: {', '.join(flags.stage_names())}. Received: "
            f"{sys.argv[1]}.{hint}"
        )
    module = f"sare_tf.{stage}"
    flags.before_stage([module, *sys.argv[2:]])
    sys.argv = [module, *sys.argv[2:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _overview() -> str:
    names = flags.stage_names()
    width = max(len(name) for name in names)
    lines = [f"  {name:{width}}  {flags.summary_of(name)[0]}" for name in names]
    return (
        "Usage: sare-tf STAGE [--flagfile=FILE] [FLAGS]\n\n"
        + "\n".join(lines)
        + "\n\nsare-tf STAGE --help shows the flags of a stage.\n"
    )


if __name__ == "__main__":
    main()
