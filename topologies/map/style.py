"""The style sheet of the network map, for light and dark, wide and narrow screens."""

STYLE = """
:root{--paper:#fbfbf9;--ink:#1d2226;--soft:#59636b;--line:#9aa5ad;--hair:#e0e3e2;--held:#b4551a;
--edge:#dbe7f6;--edge-i:#2b5f9e;--firewall:#fbdcd4;--firewall-i:#b1361b;--router:#d9efdf;--router-i:#26744a;
--loadbalancer:#f8e8bd;--loadbalancer-i:#8a6100;--bridge:#e6e0f5;--bridge-i:#6145a6;--host:#e7eaec;--host-i:#4c5962}
@media(prefers-color-scheme:dark){:root{--paper:#14181b;--ink:#e8ecee;--soft:#a3afb7;--line:#5d6a73;--hair:#2b3237;
--held:#f0a268;--edge:#1c3350;--edge-i:#86b6ee;--firewall:#4b2119;--firewall-i:#f59a83;--router:#173b29;
--router-i:#7fd3a1;--loadbalancer:#423409;--loadbalancer-i:#ecc75c;--bridge:#2f2650;--bridge-i:#b9a4f3;
--host:#2a3136;--host-i:#b7c3cb}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.45 system-ui,"Segoe UI",Roboto,sans-serif}
header,main{max-width:1280px;margin:0 auto;padding:0 20px}
header{padding-top:18px;display:flex;flex-wrap:wrap;gap:4px 16px;align-items:baseline}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:28px 0 8px}header p{margin:0;color:var(--soft)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;margin:10px 0;padding:0;color:var(--soft)}
.legend li{display:flex;align-items:center;gap:5px}.legend span{opacity:.75}
.map{overflow-x:auto;border:1px solid var(--hair);border-radius:10px;padding:6px}
.map svg{display:block;width:100%;height:auto;margin:0 auto}
.map.wide svg{max-width:1180px}.map.narrow{display:none}.map.spread svg{min-width:900px}
svg text{font-family:inherit;fill:var(--ink)}
.name{font-size:13px;font-weight:600;text-anchor:middle}.kind{font-size:10.5px;fill:var(--soft);text-anchor:middle}
.beside{font-size:12px;paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
.of-kind{fill:var(--soft);font-size:10.5px}.narrow .kind{font-size:9px}.narrow .name{font-size:12px}
.start{text-anchor:start}.middle{text-anchor:middle}.end{text-anchor:end}
.link line{stroke:var(--line);stroke-width:1.6}.link.limited line{stroke:var(--soft)}
.link .reach{stroke:transparent!important;stroke-width:14}.link:hover line{stroke:var(--held);stroke-width:3}
.node rect,.node circle,.node polygon,.legend rect,.legend circle,.legend polygon{stroke-width:1.6}
.node .ring,.legend .ring{fill:none;stroke:var(--edge-i);stroke-width:1}
.k-edge{fill:var(--edge);stroke:var(--edge-i)}.k-firewall{fill:var(--firewall);stroke:var(--firewall-i)}
.k-router{fill:var(--router);stroke:var(--router-i)}
.k-loadbalancer{fill:var(--loadbalancer);stroke:var(--loadbalancer-i)}
.k-bridge,.k-openvswitch{fill:var(--bridge);stroke:var(--bridge-i)}.rail{stroke:var(--bridge-i);stroke-width:1}
.k-host,.k-other{fill:var(--host);stroke:var(--host-i)}
.node:hover text{text-decoration:underline}
.table{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;vertical-align:top;padding:6px 14px 6px 0;border-bottom:1px solid var(--hair)}
thead th{color:var(--soft);font-weight:600}tbody th{font-weight:600;overflow-wrap:anywhere}
td b{font-weight:600}
:focus-visible{outline:2px solid var(--held);outline-offset:2px}
@media(max-width:640px){header,main{padding-left:10px;padding-right:10px}.map{padding:0}
.map.wide{display:none}.map.narrow{display:block}th,td{padding-right:8px}table{font-size:13px}}
"""
