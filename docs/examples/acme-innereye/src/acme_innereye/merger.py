"""An environment merger: the last file wins as it is. ACME keeps one complete environment per project."""

from innereye_core.model import MergedEnvironment


class LastFile:
    name = "last-file"

    def merge(self, files, name=None, extra_code=None):
        text = files[-1].path.read_text(encoding="utf-8")
        if name is not None:
            text = f"name: {name}\n" + "".join(
                line for line in text.splitlines(keepends=True) if not line.startswith("name:")
            )
        ignored = [file.label or file.path.name for file in files[:-1]]
        return MergedEnvironment(text, tuple(f"{label}: not merged" for label in ignored))
