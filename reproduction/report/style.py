"""How the page looks: plain, by the reader's own light or dark."""

STYLE = """
:root{color-scheme:light dark;--fg:#1b1d21;--bg:#fff;--dim:#62666d;
  --line:#d5d8dd;--good:#1a6b35;--bad:#b3261e;--ours:#0b57d0;--soft:#f4f5f7}
@media(prefers-color-scheme:dark){:root{--fg:#e6e7ea;--bg:#16181c;--dim:#9aa0a8;
  --line:#3a3e45;--good:#7ccf94;--bad:#ff8a80;--ours:#8ab4f8;--soft:#1f2227}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif}
main{max-width:1100px;margin:0 auto;padding:1rem}
h1{font-size:1.6rem;margin:.2em 0;overflow-wrap:anywhere}h2{font-size:1.2rem;margin:1.6em 0 .4em}
h3{font-size:1rem;margin:1em 0 .3em;overflow-wrap:anywhere}
.verdict{font-size:1.15rem;font-weight:600}.dim{color:var(--dim);font-size:.9em}
.first{border-left:4px solid var(--bad);background:var(--soft);
  padding:.1rem 1rem 1rem;margin-top:1.5rem;overflow-wrap:anywhere}
.first h2{margin-top:.6em}
.wide{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.9rem;min-width:min(100%,34rem)}
th,td{text-align:left;vertical-align:top;
  padding:.25rem .7rem .25rem 0;border-bottom:1px solid var(--line);overflow-wrap:break-word;max-width:26rem}
th{color:var(--dim);font-weight:500;overflow-wrap:normal;white-space:nowrap}
.pass{color:var(--good)}.fail{color:var(--bad);font-weight:600}.no_inputs,.skip{color:var(--dim)}
.pass,.fail,.no_inputs,.skip{white-space:nowrap}
@media(max-width:540px){.summary table{min-width:0}
  .summary :is(th,td):nth-child(4),.summary :is(th,td):nth-child(n+6){display:none}}
details{margin:.5rem 0}summary{cursor:pointer;color:var(--dim)}
.hints{margin:.4rem 0 .4rem 1.2rem;padding:0}a{color:inherit}
.chart{width:100%;min-width:36rem;max-width:60rem;display:block}
.chart text{font-size:12px;fill:var(--dim)}
.grid{stroke:var(--line);stroke-width:.5}.bound{stroke:var(--bad);stroke-dasharray:6 4}
.good{fill:var(--good)}.bad{fill:var(--bad)}
polyline{fill:none;stroke-width:2}
.line0{stroke:var(--ours)}.line1{stroke:var(--fg);stroke-dasharray:7 4}.line2{stroke:var(--dim);stroke-width:1}
g.line0 text,g.line1 text,g.line2 text{stroke:none}g.line0 text{fill:var(--ours)}g.line1 text{fill:var(--fg)}
.photo{width:100%;max-width:32rem;display:block}
.photo rect{fill:none;vector-effect:non-scaling-stroke;stroke-width:2}
.photo .theirs{stroke:#fff}.photo .ours{stroke:#ff3d00;stroke-dasharray:6 4}
.maps{display:flex;flex-wrap:wrap;gap:.8rem}.maps figure{margin:0}
p.axis{margin:.6em 0 0}
.maps img{width:240px;max-width:100%;image-rendering:pixelated;display:block}
.maps figcaption{font-size:.8rem;color:var(--dim)}
"""
