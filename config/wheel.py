"""Build step that pyproject.toml cannot express: files of `config/` go into the packages that read them."""

from pathlib import Path

from setuptools.command.build_py import build_py

# From `config/`, the one home of these files, to their place in the wheel (docs/decisions/0013-packaging.md).
COPIES = {
    "config/layouts.toml": "pipeline/layout/layouts.toml",
    "config/gateway.example.toml": "gateway/settings/gateway.example.toml",
}


class BuildWithConfiguration(build_py):
    """Copy the files of `COPIES` beside the built modules; an editable install reads them from `config/`."""

    def run(self) -> None:
        """Build the packages, then copy."""
        super().run()
        if not self.editable_mode:
            for source, target in COPIES.items():
                self.mkpath(str(Path(self.build_lib, target).parent))
                self.copy_file(source, str(Path(self.build_lib, target)))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return the files this step makes."""
        copies = [] if self.editable_mode else [str(Path(self.build_lib, target)) for target in COPIES.values()]
        return [*super().get_outputs(include_bytecode), *copies]
