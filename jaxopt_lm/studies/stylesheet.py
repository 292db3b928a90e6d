"""How the page of a study looks, on a screen and on a phone, by day and by night."""

CSS = """\
:root { color-scheme: light dark; --ink: #23272d; --paper: #ffffff; --faint: #6a7079; --line: #d9dce1; --box: #f5f6f8;
  --better: #00654a; --worse: #a84300; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dfe2e7; --paper: #17191d; --faint: #a0a6b0; --line: #363a42; --box: #1f2228;
    --better: #4cc9a0; --worse: #ff9a57; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.45 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 1.2rem 1.2rem 3rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 .4rem; }
h3 { font-size: 1rem; margin: .6rem 0 .2rem; overflow-wrap: anywhere; }
p { margin: .2rem 0 .6rem; }
header p, figcaption, footer, .note { color: var(--faint); }
.running { color: var(--ink); background: var(--box); border-left: 4px solid #d99000; padding: .5rem .8rem; }
section { margin: 0 0 2rem; }
#answers ul { list-style: none; margin: 0; padding: 0; }
#answers li { padding: .45rem 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
.better { color: var(--better); font-weight: 600; }
.worse { color: var(--worse); font-weight: 600; }
.not-resolved { color: var(--faint); font-weight: 600; }
figure { margin: 0; max-width: 920px; }
figcaption, .note { font-size: .85rem; margin-top: .3rem; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
svg.column { display: none; }
.box { overflow-x: auto; border: 1px solid var(--line); border-radius: 4px; }
table { border-collapse: collapse; font-size: .85rem; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; white-space: nowrap; }
tbody tr + tr { border-top: 1px solid var(--line); }
thead th { background: var(--box); }
.right { text-align: right; }
td.long { white-space: normal; min-width: 15rem; }
.facts th { width: 1%; font-weight: 600; }
.facts td { white-space: normal; overflow-wrap: anywhere; }
summary { cursor: pointer; padding: .2rem 0; }
@media (min-width: 1000px) {
  .answer { display: grid; grid-template-columns: 5fr 6fr; gap: 0 2rem; align-items: start; }
  .answer > :only-child { grid-column: 1 / -1; }
}
@media (max-width: 640px) {
  main { padding: .8rem 1rem 2rem; }
  svg.wide { display: none; }
  svg.column { display: block; }
}
"""
