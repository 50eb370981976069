"""Cron's five fields: when they hold next, as systemd's OnCalendar, and as a test in POSIX sh. Pure.

Format: crontab(5). Where both days are restricted, either makes a day one; a field that begins with `*` does not
restrict. 0 and 7 are Sunday. OnCalendar: systemd.time(7).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from k4t.model.value import value

RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
MAX_DAYS = 366 * 8
"""The 29th of February comes at least once in so many."""


@value
class Cron:
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    either_day: bool
    """A day of the month or one of the week: both are restricted."""


def parse(schedule: str) -> Cron:
    """`schedule` is one that the tree's checker has passed."""
    fields = schedule.split(" ")
    minutes, hours, days, months = (_numbers(f, *r) for f, r in zip(fields[:4], RANGES[:4], strict=True))
    weekdays = tuple(sorted({day % 7 for day in _numbers(fields[4], 0, 7 if "7" in fields[4] else 6)}))
    either = not (fields[2].startswith("*") or fields[4].startswith("*"))
    return Cron(minutes, hours, days, months, weekdays, either)


def _numbers(text: str, low: int, high: int) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        begin = low if first == "*" else int(first)
        end = int(last) if last else high if first == "*" or step else begin
        found.update(range(begin, end + 1, int(step or 1)))
    return tuple(sorted(found))


def next_run(schedule: str, timezone: str, after: datetime) -> datetime | None:
    """The next time after `after` (which knows its zone), in `timezone`; None when there is none (30 February)."""
    cron, zone = parse(schedule), ZoneInfo(timezone)
    local = after.astimezone(zone)
    for days in range(MAX_DAYS):
        day = (local + timedelta(days=days)).date()
        if not _is_day(cron, day.day, day.month, (day.weekday() + 1) % 7):
            continue
        for hour in cron.hours:
            for minute in cron.minutes:
                moment = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
                if moment > after:
                    return moment
    return None


def _is_day(cron: Cron, day: int, month: int, weekday: int) -> bool:
    if month not in cron.months:
        return False
    if cron.either_day:
        return day in cron.days or weekday in cron.weekdays
    return day in cron.days and weekday in cron.weekdays


def on_calendar(schedule: str, timezone: str) -> tuple[str, ...]:
    """One or two of systemd's calendar expressions."""
    cron = parse(schedule)
    time = f"{_list(cron.hours, 1)}:{_list(cron.minutes, 0)}:00 {timezone}"
    weekdays = ",".join(DAYS[day] for day in cron.weekdays) + " " if len(cron.weekdays) < len(DAYS) else ""
    months, days = _list(cron.months, 3), _list(cron.days, 2)
    if cron.either_day:
        return f"*-{months}-{days} {time}", f"{weekdays}*-{months}-* {time}"
    return (f"{weekdays}*-{months}-{days} {time}",)


def _list(numbers: tuple[int, ...], field: int) -> str:
    low, high = RANGES[field]
    return "*" if len(numbers) == high - low + 1 else ",".join(f"{number:02}" for number in numbers)


def shell_test(schedule: str, timezone: str) -> str:
    """A line of POSIX sh that ends the script with status 0 unless the schedule holds this minute. For a cron that
    knows no zones: it begins the script every minute."""
    cron = parse(schedule)
    minutes, hours, days, months = (
        " ".join(f"{number:02}" for number in numbers) for numbers in (cron.minutes, cron.hours, cron.days, cron.months)
    )
    weekdays = " ".join(map(str, cron.weekdays))
    join = "||" if cron.either_day else "&&"
    return (
        f"set -- $(TZ={timezone} date '+%M %H %m %d %w')\n"
        f'is() {{ case " $2 " in *" $1 "*) return 0 ;; esac; return 1; }}\n'
        f'is "$1" "{minutes}" && is "$2" "{hours}" && is "$3" "{months}" || exit 0\n'
        f'is "$4" "{days}" {join} is "$5" "{weekdays}" || exit 0\n'
    )
