/** Whom a limit by address counts: one IPv4 address, or the /64 of an IPv6 address, of which one machine has 2^64. */
import ipaddr from "ipaddr.js";

/** `192.0.2.1:4711` -> `192.0.2.1`, `2001:db8::1:4711` -> `2001:db8:0:0::/64`; anything else as it is. */
export function clientNetwork(peer: string): string {
  const text = peer.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1");
  if (!ipaddr.isValid(text)) return text;
  const address = ipaddr.process(text);
  if (address.kind() === "ipv4") return address.toString();
  const groups = (address as ipaddr.IPv6).parts.slice(0, 4).map((part) => part.toString(16));
  return `${groups.join(":")}::/64`;
}
