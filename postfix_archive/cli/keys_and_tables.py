"""The commands postfix-archive key create, rotate, helo, capture-maps, and tables.

config.key_file, install.capture_map_files and tables.table_file do the work.
"""

from __future__ import annotations

import os

import click

from postfix_archive.config import archive_cf, key_file
from postfix_archive.errors import ArchiveError, InstallRefused
from postfix_archive.install import capture_map_files
from postfix_archive.message.printable import safe_text
from postfix_archive.message.request import ON_REQUEST
from postfix_archive.postfix import archive_services, capture_maps, postfix_command
from postfix_archive.tables import table_file
from postfix_archive.tables.table_file import Table


@click.group()
def key() -> None:
    """Create the site key, or replace it.

    It authenticates stamps, capsules and requests.
    """


@key.command()
@click.option(
    "--id", "key_id", metavar="NAME", help="Name of the key. [default: date, random]"
)
@click.option(
    "--owner",
    metavar="USER",
    help="Owner of the file. [default: the user in master.cf]",
)
@click.pass_obj
def create(directory: str, key_id: str | None, owner: str | None) -> None:
    """Create the site key, if there is none."""
    settings = archive_cf.load(directory)
    owner = owner or _service_user(directory)
    key_file.create(settings.archive_key_file, key_id or key_file.new_key_id(), owner)
    click.echo(
        f"Created {settings.archive_key_file}. Back it up: without it stamps and"
        " capsules cannot be verified."
    )


@key.command()
@click.option(
    "--id", "key_id", metavar="NAME", help="Name of the key. [default: date, random]"
)
@click.pass_obj
def rotate(directory: str, key_id: str | None) -> None:
    """Add a new key and use it; old keys stay valid."""
    settings = archive_cf.load(directory)
    key_file.rotate(settings.archive_key_file, key_id or key_file.new_key_id())
    click.echo(
        f"{settings.archive_key_file} has a new first key. Back it up. Compiled tables"
        " stay valid; postfix-archive tables compiles them with the new key."
    )


@key.command()
@click.option(
    "--owner",
    metavar="USER",
    help="Owner of the file. [default: the user in master.cf]",
)
@click.pass_obj
def helo(directory: str, owner: str | None) -> None:
    """Create the secret HELO name for the capsule port.

    An existing one stays. It keeps local users from sending forged capsules.
    """
    settings = archive_cf.load(directory)
    path = settings.capsule_helo_file
    is_new = key_file.create_helo(path, owner or _service_user(directory))
    click.echo(
        f"{'Created' if is_new else 'Exists already:'} {path}. To use it: postconf -e"
        f" 'archive_capsule_helo = texthash:{path}' && postfix reload"
    )


@key.command("capture-maps")
@click.pass_obj
def write_capture_maps(directory: str) -> None:
    """Write the capture maps of native mode (root only).

    One for archive in main.cf, and one for each other -o archive= in master.cf. They
    have a secret of this host, so only root can read them.
    """
    config = postfix_command.read_configuration(directory)
    if capture_maps.MAP_NAME not in config.raw(capture_maps.PARAMETER):
        raise InstallRefused(
            f"{directory}/main.cf: {capture_maps.PARAMETER} names no capture map; set"
            " it first, as master.cf.d/50-archive-capture.cf says"
        )
    values = capture_maps.needed(config)
    keys = archive_cf.load_keys(archive_cf.load(directory))
    capture_map_files.check(directory, values)
    capture_map_files.write(directory, values, keys)
    for name, value in values.items():
        click.echo(f"{directory}/{name}: {value}")


def _service_user(directory: str) -> str | None:
    """Return the user of the archive services in master.cf.

    None if there are no such services, or if this process is not root.
    """
    try:
        services = postfix_command.read_configuration(directory).services
    except ArchiveError:
        return None
    users = [
        each.argument("user")
        for each in services
        if archive_services.has_launcher(each)
    ]
    return users[0].partition(":")[0] if users and not os.geteuid() else None


@click.command()
@click.option("--dry-run", is_flag=True, help="Write nothing, only report.")
@click.pass_obj
def tables(directory: str, dry_run: bool) -> None:
    """Compile the tables with ARCHIVE actions.

    archive_tables in archive.cf names their sources.
    """
    settings = archive_cf.load(directory)
    if not settings.archive_tables:
        click.echo(
            f"No tables: set archive_tables in {directory}/archive.cf, for example"
            " archive_tables = hash:/etc/postfix/sender_access.in"
        )
        return
    compiled_tables = table_file.compile_all(
        settings.archive_tables, archive_cf.load_keys(settings)
    )
    warnings = [] if dry_run else table_file.write_all(compiled_tables, directory)
    for table in compiled_tables:
        _report(table, dry_run=dry_run)
    for warning in warnings:
        click.echo(warning, err=True)
    if (
        any(table.needs_write and table.needs_reload for table in compiled_tables)
        and not dry_run
    ):
        click.echo("Run postfix reload: running services use the old tables.")
    _warn_if_not_on_request(directory)


def _report(table: Table, *, dry_run: bool) -> None:
    """Print the requests of one table, and whether it is written."""
    name = os.path.basename(table.source_path)
    for line in table.compiled.archive_lines:
        archives = ", ".join(line.archives)
        click.echo(f"{name}:{line.number}  {safe_text(line.pattern)} -> {archives}")
    written = "would be written" if dry_run else "written"
    click.echo(
        f"{name}: {len(table.compiled.archive_lines)} ARCHIVE,"
        f" {table.compiled.other_line_count} native lines kept; {table.path}"
        f" {written if table.needs_write else 'unchanged'}"
    )


def _warn_if_not_on_request(directory: str) -> None:
    """Warn if mail that only a table requests is not archived, or incompletely."""
    config = postfix_command.read_configuration(directory)
    if archive_services.installed_mode(config) in archive_services.NATIVE_MODES:
        if not capture_maps.is_on_request(config):
            _warn(
                f"{capture_maps.PARAMETER} captures only mail with archive",
                "archived without its recipients if a table requests that",
                {capture_maps.PARAMETER: capture_maps.main_expression(on_request=True)},
            )
    elif ON_REQUEST not in config.raw("content_filter"):
        content_filter = archive_services.content_filter_expression(
            1, "$archive_next_filter", True
        )
        options = archive_services.override_options_expression("", True)
        _warn(
            "content_filter has no on-request",
            "not archived, whatever a table requests",
            {"content_filter": content_filter, "receive_override_options": options},
        )


def _warn(reason: str, harm: str, parameters: dict[str, str]) -> None:
    settings = "".join(f"\n  {name} = {parameters[name]}" for name in parameters)
    click.echo(
        f"WARNING: {reason}: mail from services without archive, or with -o archive=,"
        f" is {harm}. Run make install ON_REQUEST=yes, or set in main.cf:{settings}",
        err=True,
    )
