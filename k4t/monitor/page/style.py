"""How the page looks. Colours are data, so that their contrast can be checked; everything else is CSS."""

from __future__ import annotations

from collections.abc import Mapping

LIGHT: Mapping[str, str] = {
    "ground": "#f4f6f8", "card": "#ffffff", "ink": "#18202a", "soft": "#55606e", "line": "#d5dbe2", "track": "#e3e8ed",
    "link": "#0a57a3",
    "ok": "#17633a", "ok-back": "#e2f3e8", "warning": "#754600", "warning-back": "#fdeecb",
    "critical": "#a1121c", "critical-back": "#fde3e2", "unknown": "#0c557e", "unknown-back": "#dfeffa",
}  # fmt: skip
DARK: Mapping[str, str] = {
    "ground": "#0f1318", "card": "#181e25", "ink": "#e6ebf1", "soft": "#a2adb9", "line": "#2e3843", "track": "#2a333d",
    "link": "#8ac2ff",
    "ok": "#83d7a4", "ok-back": "#15301f", "warning": "#f2c469", "warning-back": "#37290b",
    "critical": "#ffa29c", "critical-back": "#44191b", "unknown": "#92cff6", "unknown-back": "#0f2c41",
}  # fmt: skip
LEVELS = ("ok", "warning", "critical", "unknown")
TEXT_ON: tuple[tuple[str, str], ...] = (
    *(("ink", back) for back in ("ground", "card")),
    *(("soft", back) for back in ("ground", "card")),
    *(("link", back) for back in ("ground", "card")),
    *((level, back) for level in LEVELS for back in (f"{level}-back", "card")),
    *(("ink", f"{level}-back") for level in LEVELS),
    ("card", "critical"),
)
"""What stands on what."""


def _variables(colors: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{color};" for name, color in colors.items())


LAYOUT = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;font-variant-numeric:tabular-nums}
.skip{position:absolute;left:-999rem}
.skip:focus{left:1rem;top:1rem;background:var(--card);padding:.5rem 1rem;z-index:1}
.hear{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
header,main,footer{max-width:80rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:1.75rem}
h1{font-size:1.6rem;line-height:1.2;margin:0;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:1.1rem;line-height:1.3;margin:2.25rem 0 .75rem}
h3{font-size:.95rem;line-height:1.3;margin:1.25rem 0 .5rem;color:var(--soft);font-weight:600}
h4{font-size:1rem;line-height:1.3;margin:0;overflow-wrap:anywhere}
p{margin:0}
ul,ol{list-style:none;margin:0;padding:0}
a{color:var(--link);text-underline-offset:.15em}
a:focus-visible,[tabindex]:focus-visible{outline:3px solid var(--link);outline-offset:2px;border-radius:.25rem}
.soft{color:var(--soft)}
.small{font-size:.875rem}
.title{display:flex;flex-wrap:wrap;gap:.5rem 1rem;align-items:center}
.when{margin-top:.35rem;color:var(--soft);font-size:.9rem}
.badge{display:inline-flex;align-items:center;gap:.35em;padding:.1rem .6rem;border-radius:1rem;font-size:.85rem;
font-weight:600;white-space:nowrap}
.badge>span:first-child{font-weight:700}
h1+.badge{font-size:1rem;padding:.2rem .85rem}
.is-ok{color:var(--ok);background:var(--ok-back)}
.is-warning{color:var(--warning);background:var(--warning-back)}
.is-critical{color:var(--critical);background:var(--critical-back)}
.is-unknown{color:var(--unknown);background:var(--unknown-back)}
.is-plain{color:var(--soft);background:none;box-shadow:inset 0 0 0 1px var(--line)}
.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.85rem 1rem}
.note{margin-top:1rem;border-left:.3rem solid var(--unknown)}
#old{position:sticky;top:0;z-index:1;padding:.7rem 1.25rem;text-align:center;font-weight:600;
background:var(--critical);color:var(--card)}
.stale main{filter:saturate(.3)}
.findings{padding:0}
.findings+p{margin-top:.5rem}
.findings>li{display:grid;grid-template-columns:6.2rem 1fr;gap:.15rem 1rem;align-items:start;padding:.7rem 1rem;
border-left:.3rem solid var(--line);overflow-wrap:anywhere}
.findings>li>.badge{justify-self:start}
.findings>li+li{border-top:1px solid var(--line)}
.findings>li:first-child{border-top-left-radius:.5rem}
.findings>li:last-child{border-bottom-left-radius:.5rem}
.findings>li.at-critical{border-left-color:var(--critical)}
.findings>li.at-warning{border-left-color:var(--warning)}
.findings>li.at-unknown{border-left-color:var(--unknown)}
.findings>li:target{outline:3px solid var(--link);outline-offset:-3px}
.grid{display:grid;gap:.75rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,18rem),1fr));align-items:start}
.dense{grid-template-columns:repeat(auto-fill,minmax(min(100%,13rem),1fr));gap:.5rem}
.dense .card{padding:.6rem .75rem}
.grid .card{min-width:0;height:100%}
.card.edge-critical{border-color:var(--critical)}
.card.edge-warning{border-color:var(--warning)}
.card.edge-unknown{border-color:var(--unknown)}
.head{display:flex;flex-wrap:wrap;justify-content:space-between;gap:.25rem .5rem;align-items:center}
.grid .facts{color:var(--soft);font-size:.875rem;overflow-wrap:anywhere;margin-top:.15rem}
.grid .why{margin-top:.4rem;font-size:.9rem;overflow-wrap:anywhere}
.meters{display:grid;grid-template-columns:repeat(2,1fr);gap:.35rem 1rem;margin-top:.6rem}
.meters li{font-size:.8rem;color:var(--soft);display:flex;flex-wrap:wrap;justify-content:space-between}
.meters b{font-weight:600;color:var(--ink)}
.meters .at-warning b{color:var(--warning)}
.meters .at-critical b{color:var(--critical)}
.bar{display:block;width:100%;height:5px;margin-top:.1rem}
.track{fill:var(--track)}
.fill{fill:var(--soft)}
.at-ok .fill{fill:var(--ok)}
.at-warning .fill{fill:var(--warning)}
.at-critical .fill{fill:var(--critical)}
.at-unknown .fill{fill:var(--unknown)}
.chips{display:flex;flex-wrap:wrap;gap:.3rem;margin-top:.65rem}
.chips li{font-size:.82rem;line-height:1.3;padding:.12rem .5rem;border-radius:.35rem;max-width:100%;
overflow-wrap:anywhere;background:var(--ok-back);color:var(--ok)}
.chips .at-critical{background:var(--critical-back);color:var(--critical);padding:.25rem .55rem;
box-shadow:inset 0 0 0 1px}
.chips.plain li{background:none;color:var(--soft);box-shadow:inset 0 0 0 1px var(--line)}
.chips .at-unknown{background:var(--unknown-back);color:var(--unknown)}
.scroll{overflow-x:auto;padding:.25rem 0}
table{border-collapse:collapse;width:100%;font-size:.925rem}
th,td{text-align:left;padding:.45rem .85rem;vertical-align:top;border-top:1px solid var(--line)}
thead th{border-top:0;color:var(--soft);font-weight:600;font-size:.82rem;white-space:nowrap}
tbody th{font-weight:600;overflow-wrap:anywhere}
tbody th.name{min-width:5rem}
td.wide{overflow-wrap:anywhere;min-width:5.5rem}
td .badge,.lanes .badge{white-space:normal;border-radius:.6rem;max-width:100%}
.once{white-space:nowrap}
.number{text-align:right}
.lanes li{margin-top:.9rem}
.lanes li:first-child{margin-top:0}
.lanes .about{display:flex;flex-wrap:wrap;gap:.1rem .75rem;align-items:baseline;overflow-wrap:anywhere}
.lane{display:block;width:100%;height:16px;overflow:visible;margin-top:.2rem}
.due{stroke:var(--ink);stroke-width:2}
.dot{fill:var(--link);stroke:var(--card);stroke-width:1.5}
.lane .fill+.dot{fill:var(--soft)}
.at-ok .fill+.dot{fill:var(--ok)}
.at-warning .fill+.dot{fill:var(--warning)}
.at-critical .fill+.dot{fill:var(--critical)}
.axis{display:block;width:100%;height:24px;overflow:visible;margin-top:.4rem}
.axis line{stroke:var(--line)}
.axis text{fill:var(--soft);font-size:12px}
footer{padding-top:2.5rem;padding-bottom:2.5rem;color:var(--soft);font-size:.85rem}
@media (max-width:34rem){
.findings>li{grid-template-columns:1fr;padding:.7rem .85rem}
header,main,footer{padding-left:.9rem;padding-right:.9rem}
.narrow-out{display:none}
th,td{padding:.4rem .55rem}
}
@media (forced-colors:active){.badge,.chips li{border:1px solid}}
@media print{.skip{display:none}.card{break-inside:avoid}}
"""
CSS = (
    f":root{{color-scheme:light dark;{_variables(LIGHT)}}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}" + LAYOUT.replace("\n", "")
)
SCRIPT = """(function(){var b=document.body,at=b.dataset.at*1000,most=b.dataset.stale*1000,
age=document.getElementById("age"),old=document.getElementById("old"),name=document.title;
function say(s){return s<120?s+" s":s<7200?Math.round(s/60)+" min":
s<172800?Math.round(s/3600)+" h":Math.round(s/86400)+" d"}
function show(){var ms=Date.now()-at,stale=ms>most;age.textContent=" · "+say(Math.max(0,Math.round(ms/1000)))+" ago";
b.classList.toggle("stale",stale);if(old.hidden===stale){old.hidden=!stale;document.title=(stale?"OLD: ":"")+name}}
show();setInterval(show,1000)})()"""
"""Says how old the page is, each second, and when it is too old. Everything else is there without it."""
