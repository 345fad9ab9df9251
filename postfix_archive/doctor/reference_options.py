"""Compare the -o options of a service with those of master.cf.d, its reference.

Used by check_ports and check_lmtp. A service inherits each parameter of main.cf that
its entry does not set, so the reference sets all that matter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from postfix_archive.doctor.finding import Finding
from postfix_archive.doctor.host import Host
from postfix_archive.monitoring import CRITICAL, WARNING
from postfix_archive.postfix import configuration
from postfix_archive.postfix.configuration import Service


def is_same_list(host: Host, service: Service, name: str, expected: str) -> bool:
    """Tell whether an option of a service has the expected values, in any order."""
    actual = configuration.split_list(service.options[name])
    return sorted(actual) == sorted(configuration.split_list(expected))


@dataclass(frozen=True)
class OptionRules:
    """What it means if an option of the reference is missing or differs."""

    missing_check: str  # name of the check
    different_check: str
    harms: Mapping[str, str]  # by option
    harms_by_part: tuple[tuple[str, str], ...]  # part of other options -> harm
    warnings: Collection[str] = ()  # options that are never critical
    is_equivalent: Callable[[Host, Service, str, str], bool] = is_same_list

    def compare(
        self,
        host: Host,
        service: Service,
        reference: Service | None,
        *,
        ignored: Collection[str] = (),
    ) -> Iterator[Finding]:
        """Yield a finding for each option that is missing or differs."""
        for name, expected in reference.options.items() if reference else ():
            if name in ignored:
                continue
            if name not in service.options:
                yield self._missing(host, service, name, expected)
            elif not self.is_equivalent(host, service, name, expected):
                actual = service.options[name] or "empty"
                reason = f"is {actual}, must be {expected or 'empty'}"
                yield self.finding(host, service, name, expected, reason)

    def finding(
        self,
        host: Host,
        service: Service,
        name: str,
        expected: str,
        reason: str,
        *,
        check: str = "",
        is_wrong: bool = True,
    ) -> Finding:
        """Return the finding for one option; different_check unless check is given."""
        return Finding(
            check or self.different_check,
            CRITICAL if is_wrong and name not in self.warnings else WARNING,
            f"master.cf: {service.key} -o {name}",
            f"{self._harm(name)} ({reason})",
            host.option_command(service, name, expected),
            is_safe=True,
        )

    def _missing(
        self, host: Host, service: Service, name: str, expected: str
    ) -> Finding:
        """Return the finding for a missing option; WARNING if main.cf has the value."""
        inherited = host.config.value(name)
        is_wrong = inherited != host.config.expand(expected)
        reason = (
            f"not set; main.cf has {inherited or 'an empty value'}"
            if is_wrong
            else "if main.cf changes; the option is not set here"
        )
        check = self.missing_check
        return self.finding(
            host, service, name, expected, reason, check=check, is_wrong=is_wrong
        )

    def _harm(self, name: str) -> str:
        if name in self.harms:
            return self.harms[name]
        return next(harm for part, harm in self.harms_by_part if part in name)
