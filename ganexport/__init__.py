"""Turning generators into ONNX and TensorRT bundles that are proven to be what was trained.

from ganexport import ExportOptions, Spec, export, export_run
export_run(Path("runs/digits"), Path("digits.gan"), ExportOptions(tensorrt=True))
export(module, Spec(z_dim=128, classes=["cat", "dog"]), Path("pets.gan"))
"""

from typing import TYPE_CHECKING

from ganinfer.lookup import lazy_face

if TYPE_CHECKING:
    from ganexport.options import ExportOptions
    from ganexport.pipeline import Exported, export, export_run
    from ganexport.subjects.spec import Spec
else:
    __getattr__ = lazy_face(
        "ganexport",
        {
            "ExportOptions": "ganexport.options",
            "Exported": "ganexport.pipeline",
            "Spec": "ganexport.subjects.spec",
            "export": "ganexport.pipeline",
            "export_run": "ganexport.pipeline",
        },
    )

__all__ = ["ExportOptions", "Exported", "Spec", "export", "export_run"]
