"""A packager: the usual folder, and a notice in front of it. Core writes the manifest over whatever is there."""

from innereye_core.builtin.packager import InnerEyePackager


class WithNotice:
    name = "with-notice"

    def build(self, plan, folder):
        InnerEyePackager().build(plan, folder)
        structures = ", ".join(plan.config.structure_names)
        notice = f"{plan.config.model_name} finds {structures}. ACME, for research only.\n"
        (folder / "NOTICE.txt").write_text(notice, encoding="utf-8")
