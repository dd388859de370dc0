"""Whether a Kubernetes object is what its schema says, unknown keys included. Runs in .venv/.tools.

Built-in kinds: the API server's own OpenAPI schemas (PyPI kubernetes-validate). Custom resources: models that are
generated from the operators' definitions, each from where it can be had: PyPI cloudcoil (Prometheus Operator, KEDA),
PyPI kserve, npm @kubernetes-models/gateway-api. Most ignore what they do not know, so we look for it ourselves.
"""

import importlib
import importlib.util
import json
import re
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

Object = Mapping[str, Any]
GATEWAY_MODELS: Final = (
    Path(__file__).resolve().parents[1] / ".venv" / ".tools" / "gateway-api" / "package" / "gateway.networking.k8s.io"
)
_PYDANTIC: Final = {
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
}
_KSERVE: Final = {
    "serving.kserve.io/v1alpha1/ServingRuntime": "V1alpha1ServingRuntime",
    "serving.kserve.io/v1beta1/InferenceService": "V1beta1InferenceService",
}
_OPEN: Final = re.compile(r"(dict|list)[\[(](?:str, )?(.*)[\])]$")


def problems(found: Object, version: str) -> list[str]:
    """What is wrong with `found` for Kubernetes `version` ("1.35"); a kind that nobody knows is a problem, too."""
    group = found["apiVersion"]
    checks: dict[str, Callable[[Object], list[str]]] = {
        **dict.fromkeys(_PYDANTIC, _pydantic),
        "gateway.networking.k8s.io/v1": _gateway,
        "serving.kserve.io/v1alpha1": _kserve,
        "serving.kserve.io/v1beta1": _kserve,
    }
    check = checks.get(group)
    return check(found) if check else builtin(found, version)


def builtin(found: Object, version: str) -> list[str]:
    """Against the API server's schema, strictly."""
    validator = importlib.import_module("kubernetes_validate")
    try:
        validator.validate(found, version, strict=True)
    except validator.ValidationError as error:
        where = "/".join(str(part) for part in error.path)
        return [f"{where}: {error.message.splitlines()[0][:200]}"]
    except (validator.SchemaNotFoundError, validator.InvalidSchemaError):
        return [f"no schema of {found['apiVersion']} {found['kind']} for {version}"]
    return []


def _pydantic(found: Object) -> list[str]:
    """Against a pydantic model; what it dropped on reading is unknown."""
    module = importlib.import_module(_PYDANTIC[found["apiVersion"]])
    model = getattr(module, found["kind"], None)
    if model is None:
        return [f"no model of {found['kind']}"]
    try:
        read = model.model_validate(found)
    except ValueError as error:
        return [str(error).splitlines()[0]]
    kept = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return [f"{path}: unknown" for path in missing(found, kept)]


def missing(given: object, kept: object, path: str = "") -> list[str]:
    """Paths of `given` that `kept` lacks."""
    if isinstance(given, Mapping):
        kept = kept if isinstance(kept, Mapping) else {}
        lost = [f"{path}/{key}" for key in given if key not in kept]
        return lost + [each for key in given if key in kept for each in missing(given[key], kept[key], f"{path}/{key}")]
    if isinstance(given, list):
        pairs = zip(given, kept if isinstance(kept, list) else [], strict=False)
        return [each for place, (one, other) in enumerate(pairs) for each in missing(one, other, f"{path}/{place}")]
    return []


def _gateway(found: Object) -> list[str]:
    """Against the JSON schema inside the npm package, closed to unknown keys."""
    text = (GATEWAY_MODELS / "v1" / f"{found['kind']}.js").read_text(encoding="utf-8")
    schema, _ = json.JSONDecoder().raw_decode(text, text.index("const schema = ") + len("const schema = "))
    schema["properties"]["metadata"] = {"type": "object"}  # a reference out of the package; kubernetes' own
    validator = importlib.import_module("jsonschema").Draft7Validator(closed(schema))
    return [
        f"{'/'.join(str(part) for part in error.path)}: {error.message[:200]}"
        for error in validator.iter_errors(dict(found))
    ]


def closed(schema: Any) -> Any:
    """The schema with every object that lists its properties closed to others."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        changed.setdefault("additionalProperties", False)
    return changed


def _kserve(found: Object) -> list[str]:
    """Against the generated classes' tables of fields; Kubernetes' own parts are read as parts of a pod."""
    models = _kserve_models()
    name = _KSERVE.get(f"{found['apiVersion']}/{found['kind']}")
    if name is None:
        return [f"no model of {found['kind']}"]
    return _walk(found, name, models, found["kind"])


def _kserve_models() -> types.ModuleType:
    """kserve.models without the rest of the package, which wants a whole server's dependencies."""
    if "kserve" not in sys.modules:
        spec = importlib.util.find_spec("kserve")
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError("kserve")
        package = types.ModuleType("kserve")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["kserve"] = package
    return importlib.import_module("kserve.models")


def _walk(value: Any, kind: str, models: types.ModuleType, path: str) -> list[str]:
    inside = _OPEN.match(kind)
    if inside and inside.group(1) == "list":
        return [
            each for place, item in enumerate(value) for each in _walk(item, inside.group(2), models, f"{path}/{place}")
        ]
    if inside:
        return []
    model = getattr(models, kind, None)
    if model is None:
        return _scalar(value, kind, path)
    fields = {theirs: model.openapi_types[ours] for ours, theirs in model.attribute_map.items()}
    unknown = [f"{path}/{key}: unknown" for key in value if key not in fields]
    return unknown + [
        each for key in value if key in fields for each in _walk(value[key], fields[key], models, f"{path}/{key}")
    ]


def _scalar(value: Any, kind: str, path: str) -> list[str]:
    """A plain value, or one of Kubernetes' own objects: containers and volumes are checked as parts of a pod."""
    plain = {"str": str, "int": int, "bool": bool, "float": (int, float)}.get(kind)
    if plain is not None:
        return [] if isinstance(value, plain) else [f"{path}: {value!r} is not {kind}"]  # type: ignore[arg-type]
    inside = {"V1Container": "containers", "V1Volume": "volumes", "V1Probe": "probe"}.get(kind)
    if inside is None:
        return []
    spec: dict[str, Any] = {"containers": [{"name": "stand-in", "image": "stand-in"}]}
    if inside == "probe":
        spec["containers"][0]["livenessProbe"] = value
    else:
        spec[inside] = [value]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stand-in"}, "spec": spec}
    return [f"{path}: {each}" for each in builtin(pod, "1.35")]
