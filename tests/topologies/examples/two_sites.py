"""Two offices behind one Linux router; the second office is far away."""

from mininet.link import TCLink
from mininet.node import Node
from mininet.topo import Topo

print("reading two_sites")  # noqa: T201  files print, and a reader must bear it


class LinuxRouter(Node):
    """A node that routes."""

    def config(self, **params):
        super().config(**params)
        self.cmd("sysctl net.ipv4.ip_forward=1")

    def terminate(self):
        self.cmd("sysctl net.ipv4.ip_forward=0")
        super().terminate()


class TwoSites(Topo):
    def build(self, clients=1, delay="5ms"):
        router = self.addNode("r0", cls=LinuxRouter, ip="192.168.1.1/24")
        near, far = self.addSwitch("s1"), self.addSwitch("s2", dpid="2")
        self.addLink(near, router, intfName2="r0-eth1", params2={"ip": "192.168.1.1/24"})
        self.addLink(
            far, router, cls=TCLink, intfName2="r0-eth2", params2={"ip": "172.16.0.1/12"},
            bw=10, delay=delay, jitter="1ms", loss=0.5, max_queue_size=100, use_htb=True,
        )  # fmt: skip
        for n in range(clients):
            host = self.addHost(f"h{n + 1}", ip=f"192.168.1.{100 + n}/24", defaultRoute="via 192.168.1.1")
            self.addLink(host, near)
        server = self.addHost("server", ip="172.16.0.100/12", mac="00:00:00:00:00:AA", defaultRoute="via 172.16.0.1")
        self.addLink(server, far)


topos = {"sites": TwoSites, "busy": lambda n=3: TwoSites(clients=n)}
