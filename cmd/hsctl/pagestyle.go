package main

// pageStyle is the style of all pages: readable on a phone, in the dark and on
// A4. Its hash is what a page's content security policy allows; there is no
// other style, and no script.
const pageStyle = `
:root{color-scheme:light dark;--bg:#fff;--fg:#1c2126;--dim:#5a6570;--line:#d5dbe1;--soft:#f3f5f7;--a:#2f6fb3;--b:#c2502f}
@media(prefers-color-scheme:dark){:root{--bg:#14181c;--fg:#e4e8ec;--dim:#9ba6b1;--line:#343c44;--soft:#1d2329;--a:#6ea8e0;--b:#ee8a68}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 3rem;max-width:60rem;background:var(--bg);color:var(--fg);font:1rem/1.5 system-ui,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .25rem;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2.25rem 0 .6rem;padding-bottom:.25rem;border-bottom:1px solid var(--line)}
p{margin:.5rem 0;max-width:44rem}
a{color:var(--a)}
.dim,small,caption,figcaption{color:var(--dim)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.6rem;margin:1.25rem 0;padding:0}
.tiles div{background:var(--soft);border-radius:.4rem;padding:.6rem .8rem}
.tiles dt{color:var(--dim);font-size:.85rem}
.tiles dd{margin:0;font-size:1.35rem;font-variant-numeric:tabular-nums}
.wrap{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:.3rem .9rem .3rem 0;border-bottom:1px solid var(--line)}
th{font-weight:600;color:var(--dim);white-space:nowrap}
td:first-child{overflow-wrap:anywhere;min-width:7rem}
.n{text-align:right;white-space:nowrap}
td.t,code{white-space:nowrap}
th:last-child,td:last-child{padding-right:0}
td.bar{width:26%;min-width:5rem;vertical-align:middle}
td.bar svg{display:block;width:100%;height:.7rem}
figure{margin:.5rem 0 1rem}
figure>div{display:grid;grid-template-columns:auto 1fr;column-gap:.5rem}
.y{display:flex;flex-direction:column;justify-content:space-between;text-align:right;font-size:.8rem;color:var(--dim);line-height:1;font-variant-numeric:tabular-nums}
.x{grid-column:2;display:flex;justify-content:space-between;font-size:.8rem;color:var(--dim);padding-top:.3rem}
figure svg{display:block;width:100%;height:9rem}
.a{fill:var(--a)}.b{fill:var(--b)}.g{stroke:var(--line);stroke-width:1;vector-effect:non-scaling-stroke}
.key{display:inline-block;width:.75em;height:.75em;border-radius:.15em;vertical-align:-.05em;margin:0 .25em 0 .8em}
.key svg{display:block;width:100%;height:100%}
code,pre{font-family:ui-monospace,"DejaVu Sans Mono","Liberation Mono",Consolas,monospace;font-size:.85rem}
pre{background:var(--soft);border-radius:.4rem;padding:.7rem .9rem;overflow-x:auto;white-space:pre-wrap;overflow-wrap:anywhere}
@media(max-width:34rem){body{padding:1rem .75rem 2rem}.opt{display:none}td.bar{min-width:3.5rem}}
@page{size:A4;margin:16mm 14mm}
@media print{:root{color-scheme:light;--bg:#fff;--fg:#000;--dim:#444;--line:#bbb;--soft:#f3f3f3;--a:#2f6fb3;--b:#c2502f}
body{padding:0;max-width:none;font-size:9.5pt;print-color-adjust:exact;-webkit-print-color-adjust:exact}
h2{break-after:avoid}tr,figure,.tiles,pre{break-inside:avoid}thead{display:table-header-group}.wrap{overflow:visible}figure svg{height:7rem}a{color:inherit;text-decoration:none}}
`
