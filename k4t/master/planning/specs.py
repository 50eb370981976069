"""What a container is, as one hash: written onto users' containers, so no release may change a form given here.

The canonical form uses the schema's own names, leaves out every default, and holds only what is fixed when Docker
creates the container. Golden files (tests/planning/golden/specs) pin the hashes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping

from k4t.model.app import App, Env, ExecProbe, File, Health, ImageProbe, Log, Network, Port, Resources, Stop, Volume

VERSION = "v1"


def spec_hash(app: App, image_digest: str) -> str:
    """ "v1:" and the sha256 (hex) of the canonical form. `image_digest` is ResolvedImage.digest."""
    return f"{VERSION}:{hashlib.sha256(canonical_json(canonical_spec(app, image_digest))).hexdigest()}"


def secret_digests(app: App) -> dict[str, str]:
    """The keyed digests that count for the spec, by the secret's name; "" where one is not known here."""
    found = {env.secret: env.digest for env in app.env if env.secret}
    return found | {file.secret: file.sha256 for file in app.files if file.secret and file.on_change == "replace"}


def own_files(app: App) -> dict[str, str]:
    """What stands in files that one container has for itself, by target: the hash of the content where that can
    change without a new container ("" of a secret that isn't known here), else ""."""
    own = (file for file in app.files if file.secret or file.on_change != "replace")
    return {file.target: file.sha256 if file.on_change != "replace" else "" for file in own}


def with_digests(app: App, digests: Mapping[str, str]) -> App:
    """The app with these digests of its secrets; those that are not named are unknown."""
    return dataclasses.replace(
        app,
        env=_env_with(app.env, digests),
        jobs=tuple(dataclasses.replace(job, env=_env_with(job.env, digests)) for job in app.jobs),
        files=tuple(dataclasses.replace(f, sha256=digests.get(f.secret, "")) if f.secret else f for f in app.files),
    )


def _env_with(env: tuple[Env, ...], digests: Mapping[str, str]) -> tuple[Env, ...]:
    return tuple(dataclasses.replace(e, digest=digests.get(e.secret, "")) if e.secret else e for e in env)


def spec_beside(app: App, image_digest: str, told: Mapping[str, str]) -> str:
    """The app's spec as far as a container with these digests can be compared: what is not known here counts as
    unchanged, and so does what was not known when it was created."""
    known = secret_digests(app)
    return spec_hash(with_digests(app, {n: known.get(n) or told[n] for n in known if n in told}), image_digest)


def resources_label(app: App) -> str:
    """What can be changed in place, as the `.resources` label keeps it: canonical JSON, nothing left out but None."""
    return resources_text(app.resources, app.container.restart)


def resources_text(resources: Resources, restart: str) -> str:
    value = _lean(
        cpus=None if resources.cpus is None else _decimal(resources.cpus),
        memory=resources.memory_bytes,
        pids=resources.pids,
        restart=restart,
    )
    return canonical_json(value).decode()


def canonical_json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def canonical_spec(app: App, image_digest: str) -> dict[str, object]:
    """The form that is hashed. What is absent has the schema's default."""
    return _lean(
        image=image_digest,
        restart=app.restart or None,
        entrypoint=_listed(app.entrypoint),
        command=_listed(app.command),
        container=_container(app) or None,
        network=_network(app.network) or None,
        # In the tree's order: PORT is the first one's.
        port=[_port(port) for port in app.ports] or None,
        env=_env(app) or None,
        label=dict(app.labels) or None,
        file=[_file(file) for file in sorted(app.files, key=lambda file: file.target)] or None,
        volume=[_volume(volume) for volume in sorted(app.volumes, key=lambda volume: volume.target)] or None,
        resources=_lean(gpus=app.resources.gpus or None, shm=app.resources.shm_bytes) or None,
        health=_health(app.health) or None,
        log=_log(app.log) or None,
        stop=_stop(app.stop) or None,
        docker=dict(app.docker_extra) or None,
    )


def _lean(**values: object) -> dict[str, object]:
    return {name.replace("_", "-"): value for name, value in values.items() if value is not None}


def _listed(args: tuple[str, ...] | None) -> list[str] | None:
    """An empty list is not None: it clears the image's own."""
    return None if args is None else list(args)


def _decimal(number: float) -> str:
    return f"{number:.9f}".rstrip("0").rstrip(".")


def _milliseconds(seconds: float, default_s: float) -> int | None:
    return None if seconds == default_s else round(seconds * 1000)


def _container(app: App) -> dict[str, object]:
    settings = app.container
    return _lean(
        user=settings.user or None,
        workdir=settings.workdir or None,
        read_only=settings.read_only or None,
        init=settings.init or None,
        cap_add=sorted(settings.cap_add) or None,
        cap_drop=sorted(settings.cap_drop) or None,
    )


def _network(network: Network) -> dict[str, object]:
    return _lean(
        mode=None if network.mode == "host" else network.mode,
        resolvers=list(network.resolvers) or None,
        search=list(network.search) or None,
    )


def _port(port: Port) -> dict[str, object]:
    protocol = None if port.protocol == "tcp" else port.protocol
    return _lean(name=port.name, container=port.container, host=port.host, protocol=protocol)


def _env(app: App) -> Mapping[str, object]:
    return {
        env.name: _lean(secret=env.secret, digest=env.digest or None) if env.secret else env.value for env in app.env
    }


def _file(file: File) -> dict[str, object]:
    """What `on-change` can bring in without a new container is no part of the spec."""
    default_mode = 0o400 if file.secret else 0o444
    return _lean(
        target=file.target,
        sha256=(file.sha256 or None) if file.on_change == "replace" and not file.secret else None,
        digest=(file.sha256 or None) if file.on_change == "replace" and file.secret else None,
        secret=file.secret or None,
        mode=None if file.mode == default_mode else f"{file.mode:04o}",
        owner=file.owner or None,
        on_change=None if file.on_change == "replace" else file.on_change,
    )


def _volume(volume: Volume) -> dict[str, object]:
    return _lean(
        target=volume.target,
        path=volume.path or None,
        name=volume.name or None,
        tmpfs=volume.tmpfs_bytes,
        owner=volume.owner or None,
        read_only=volume.read_only or None,
    )


def _health(health: Health | None) -> dict[str, object]:
    """Only what Docker itself checks; HTTP and TCP are probed from outside."""
    if health is None or not isinstance(health.probe, ExecProbe | ImageProbe):
        return {}
    plain = Health(health.probe)
    return _lean(
        exec=list(health.probe.args) if isinstance(health.probe, ExecProbe) else None,
        image=True if isinstance(health.probe, ImageProbe) else None,
        interval_ms=_milliseconds(health.interval_s, plain.interval_s),
        timeout_ms=_milliseconds(health.timeout_s, plain.timeout_s),
        retries=None if health.retries == plain.retries else health.retries,
        start_period_ms=_milliseconds(health.start_period_s, plain.start_period_s),
    )


def _log(log: Log) -> dict[str, object]:
    plain = Log()
    return _lean(
        driver=None if log.driver == plain.driver else log.driver,
        max_size=None if log.max_size_bytes == plain.max_size_bytes else log.max_size_bytes,
        max_files=None if log.max_files == plain.max_files else log.max_files,
    )


def _stop(stop: Stop) -> dict[str, object]:
    return _lean(signal=stop.signal or None, grace_ms=_milliseconds(stop.grace_s, Stop().grace_s))
