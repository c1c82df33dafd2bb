"""The page's look: light, dark and printed."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fff; --ink: #1c2329; --soft: #5d6872; --rule: #dfe4e8; --well: #f5f7f8;
  --c1: #1f6fb2; --c2: #b3590a; --c3: #8a939b; --good: #1d7a45; --bad: #b3261e; --warn: #8a5a00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181c; --ink: #e6eaed; --soft: #9aa6b0; --rule: #2f373e; --well: #1b2126;
    --c1: #6cb2ee; --c2: #eda35c; --c3: #808b94; --good: #6fcf97; --bad: #ff8a80; --warn: #f0c060;
  }
}
@media print {
  :root {
    color-scheme: light;
    --paper: #fff; --ink: #000; --soft: #444; --rule: #ccc; --well: #fff;
    --c1: #1f6fb2; --c2: #b3590a; --c3: #8a939b; --good: #1d7a45; --bad: #b3261e; --warn: #8a5a00;
  }
  body { font-size: 10pt; }
  .figure, tr, figure, .tile, .part { break-inside: avoid; }
  h2, h3, h4 { break-after: avoid; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1.25rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; padding-bottom: .25rem; border-bottom: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.1rem 0 .3rem; }
h4 { font-size: .9rem; font-weight: 600; margin: .7rem 0 .2rem; }
p { margin: .4rem 0; max-width: 48rem; }
p, li, dd, td, th, h3, h4 { overflow-wrap: anywhere; }
.soft, .note { color: var(--soft); }
.note { font-size: .87rem; }
.absent { color: var(--soft); font-style: italic; }
.state { display: inline-block; font-size: .95rem; font-weight: 600; padding: .05rem .6rem; border-radius: 1rem;
  border: 1px solid currentColor; vertical-align: .25rem; margin-left: .6rem; white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
dl.facts { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .1rem 1rem; margin: .8rem 0;
  font-size: .92rem; }
dl.facts dt { color: var(--soft); } dl.facts dd { margin: 0 0 .2rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .6rem; margin: 1rem 0; }
.tile { background: var(--well); border: 1px solid var(--rule); border-radius: .4rem; padding: .5rem .7rem; }
.tile b { display: block; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .85rem; }
.grid2 { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); gap: .5rem 1.5rem; }
.grid2 > * { min-width: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .4rem 0; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: .82rem; }
th, td { padding: .28rem .6rem .28rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th.n, td.n { text-align: right; white-space: nowrap; overflow-wrap: normal; }
td.name, th.name { white-space: nowrap; overflow-wrap: normal; }
td.wide { min-width: 12rem; }
td.bars { width: 38%; min-width: 4rem; padding-right: 0; vertical-align: middle; }
tr:last-child td { border-bottom: 0; }
@media (max-width: 36rem) { table { font-size: .82rem; } th, td { padding-right: .4rem; } td.bars { min-width: 2rem; } }
code, pre { font: .86em/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { overflow-wrap: anywhere; }
pre { margin: .25rem 0; padding: .4rem .6rem; background: var(--well); border: 1px solid var(--rule);
  border-radius: .3rem; white-space: pre-wrap; overflow-wrap: anywhere; }
ol.list { margin: .2rem 0 0; padding-left: 1.5rem; font-size: .9rem; }
ol.list .note { display: inline-block; max-width: 100%; }
ol.list li::marker { color: var(--soft); }
.users { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 16rem), 1fr)); gap: .2rem 1.5rem; }
svg.bar { display: block; width: 100%; height: .7rem; }
svg.chart { display: block; width: 100%; height: auto; max-width: 34rem; }
svg text { font-size: 11px; fill: var(--soft); font-family: inherit; }
.grid { stroke: var(--rule); stroke-width: 1; }
.curve { fill: none; stroke-width: 2; stroke: currentColor; stroke-linejoin: round; }
.dot { fill: currentColor; stroke: currentColor; stroke-width: 1.5; } .dot.hollow { fill: var(--paper); }
.line1 { color: var(--c1); } .line2 { color: var(--c2); } .line3 { color: var(--c3); }
.floor1, .floor2 { color: var(--bad); } .floor2 { color: var(--warn); }
.floor1 .curve { stroke-dasharray: 6 4; stroke-width: 1.5; }
.floor2 .curve { stroke-dasharray: 2 3; stroke-width: 1.5; }
.fill1 { fill: var(--c1); } .fill2 { fill: var(--c2); } .fill3 { fill: var(--c3); opacity: .55; }
.fillbad { fill: var(--bad); }
ul.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0 1.1rem; margin: .2rem 0; padding: 0;
  font-size: .83rem; color: var(--soft); }
svg.key { width: 22px; height: 10px; margin-right: .4rem; }
footer { margin-top: 2.5rem; padding-top: .6rem; border-top: 1px solid var(--rule); color: var(--soft);
  font-size: .87rem; }
"""
