//! CLUSTER: the node as cluster-aware clients see it, each core a node of its own.
//!
//! Place in the flow: beside step 4 (route): a client that asked sends each key to the core that owns it, and nothing
//! is forwarded. Pure: a view is made of the routes for one reply.
//!
//! ```text
//! core 0   <ip>:<port of core 0>   slots 0-8191        id of (data directory, 0)
//! core 1   <ip>:<port of core 1>   slots 8192-16383    id of (data directory, 1)
//! ```
//!
//! Invariants:
//! - Slots of a core that lie side by side are one range; every slot is in one range.
//! - A core keeps its id through every start. Ports are those of the cores, never the shared one, which reaches any
//!   core; where there is one core, the two are the same.
//! - The address is one that reached this node: a listener on all addresses tells the one that the client came by.
//!
//! Formats: CLUSTER NODES as <https://redis.io/commands/cluster-nodes/> has it. There is no cluster bus, so its port
//! is 0.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use eyot_protocol::key::{slots_of_shard, SLOT_COUNT};
use eyot_protocol::resp::Writer;

use super::identifier::identifier;
use crate::router::Routes;

/// A core as a node of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// 40 hexadecimal digits.
    pub id: String,
    /// The address for this client, without brackets.
    pub ip: String,
    /// The port of the core's own listener.
    pub port: u16,
    /// First and last slots of its ranges, ascending.
    pub ranges: Vec<(u16, u16)>,
}

/// The cores of the node, as one client is to see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    nodes: Vec<ClusterNode>,
    me: usize,
}

impl ClusterView {
    /// The view of a client of core `me`, whose connection came in on `arrived_on`. `addresses` has one for each core.
    pub fn new(routes: &Routes, addresses: &[SocketAddr], node_uuid: u128, me: u16, arrived_on: IpAddr) -> Self {
        let nodes = addresses.iter().enumerate().map(|(core, address)| ClusterNode {
            id: identifier(node_uuid, core as u64),
            ip: advertised(address.ip(), arrived_on).to_string(),
            port: address.port(),
            ranges: ranges_of_core(routes, core as u16),
        });
        Self { nodes: nodes.collect(), me: usize::from(me) }
    }

    /// The nodes, by core.
    pub fn nodes(&self) -> &[ClusterNode] {
        &self.nodes
    }

    /// CLUSTER SLOTS: for each range its first and last slot, and the node that has it.
    pub fn slots(&self, reply: &mut Writer<'_>) {
        let mut ranges: Vec<_> =
            self.nodes.iter().flat_map(|node| node.ranges.iter().map(move |range| (*range, node))).collect();
        ranges.sort_unstable_by_key(|(range, _)| *range);
        reply.array(ranges.len());
        for ((first, last), node) in ranges {
            reply.array(3);
            reply.integer(i64::from(first));
            reply.integer(i64::from(last));
            reply.array(4);
            reply.bulk_text(&node.ip);
            reply.integer(i64::from(node.port));
            reply.bulk_text(&node.id);
            // Other names of the node: none.
            reply.map(0);
        }
    }

    /// CLUSTER SHARDS: for each core its slots and itself as their only node.
    pub fn shards(&self, reply: &mut Writer<'_>) {
        reply.array(self.nodes.len());
        for node in &self.nodes {
            reply.map(2);
            reply.bulk_text("slots");
            reply.array(2 * node.ranges.len());
            for (first, last) in &node.ranges {
                reply.integer(i64::from(*first));
                reply.integer(i64::from(*last));
            }
            reply.bulk_text("nodes");
            reply.array(1);
            reply.map(7);
            reply.bulk_text("id");
            reply.bulk_text(&node.id);
            reply.bulk_text("port");
            reply.integer(i64::from(node.port));
            for (name, value) in [("ip", &*node.ip), ("endpoint", &*node.ip), ("role", "master")] {
                reply.bulk_text(name);
                reply.bulk_text(value);
            }
            reply.bulk_text("replication-offset");
            reply.integer(0);
            reply.bulk_text("health");
            reply.bulk_text("online");
        }
    }

    /// CLUSTER NODES: a line for each core.
    pub fn nodes_text(&self) -> String {
        let mut text = String::new();
        for (core, node) in self.nodes.iter().enumerate() {
            let myself = if core == self.me { "myself," } else { "" };
            let _ = write!(text, "{} {}:{}@0 {myself}master - 0 0 {} connected", node.id, node.ip, node.port, core + 1);
            for (first, last) in &node.ranges {
                let _ = if first == last { write!(text, " {first}") } else { write!(text, " {first}-{last}") };
            }
            text.push('\n');
        }
        text
    }

    /// CLUSTER MYID.
    pub fn my_id(&self) -> &str {
        &self.nodes[self.me].id
    }

    /// CLUSTER INFO.
    pub fn info_text(&self) -> String {
        let with_slots = self.nodes.iter().filter(|node| !node.ranges.is_empty()).count();
        let fields: [(&str, &dyn std::fmt::Display); 12] = [
            ("cluster_state", &"ok"),
            ("cluster_slots_assigned", &SLOT_COUNT),
            ("cluster_slots_ok", &SLOT_COUNT),
            ("cluster_slots_pfail", &0),
            ("cluster_slots_fail", &0),
            ("cluster_known_nodes", &self.nodes.len()),
            ("cluster_size", &with_slots),
            ("cluster_current_epoch", &self.nodes.len()),
            ("cluster_my_epoch", &(self.me + 1)),
            ("cluster_stats_messages_sent", &0),
            ("cluster_stats_messages_received", &0),
            ("total_cluster_links_buffer_limit_exceeded", &0),
        ];
        let mut text = String::new();
        for (name, value) in fields {
            let _ = write!(text, "{name}:{value}\r\n");
        }
        text
    }

    /// The error line, without `-`, that sends a client of another core to the one that owns `slot`; `None` if this
    /// core owns it.
    pub fn moved(&self, slot: u16) -> Option<String> {
        let owns = |node: &ClusterNode| node.ranges.iter().any(|(first, last)| (*first..=*last).contains(&slot));
        let owner = self.nodes.iter().position(owns)?;
        let node = &self.nodes[owner];
        (owner != self.me).then(|| format!("MOVED {slot} {}:{}", node.ip, node.port))
    }
}

/// The address that a client is told of a listener on `listening`, when its own connection came in on `arrived_on`.
pub fn advertised(listening: IpAddr, arrived_on: IpAddr) -> IpAddr {
    if listening.is_unspecified() {
        // A listener for both versions of IP names its IPv4 connections by IPv6 addresses.
        arrived_on.to_canonical()
    } else {
        listening
    }
}

/// First and last slots of what `core` owns; neighbours are one range.
fn ranges_of_core(routes: &Routes, core: u16) -> Vec<(u16, u16)> {
    let shard_count = routes.shard_cores().len() as u16;
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for shard in routes.shards_of_core(core) {
        let slots = slots_of_shard(shard.0, shard_count);
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == slots.start => *last = slots.end - 1,
            _ => ranges.push((slots.start, slots.end - 1)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use eyot_protocol::resp::RespVersion;

    const CAME_BY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

    fn view(shards: u16, addresses: &[&str], me: u16) -> ClusterView {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let routes = Routes::new(shards, addresses.len() as u16);
        ClusterView::new(&routes, &addresses, 7, me, CAME_BY)
    }

    fn written(version: RespVersion, write: impl FnOnce(&mut Writer<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut Writer::new(&mut out, version));
        String::from_utf8(out).unwrap().replace("\r\n", " ")
    }

    #[test]
    fn slots_are_merged_into_one_range_a_core() {
        let view = view(8, &["127.0.0.1:6480", "127.0.0.1:6481"], 1);
        let (one, two) = (identifier(7, 0), identifier(7, 1));
        let expected = format!(
            "*2 *3 :0 :8191 *4 $9 127.0.0.1 :6480 $40 {one} *0 *3 :8192 :16383 *4 $9 127.0.0.1 :6481 $40 {two} *0 "
        );
        assert_eq!(written(RespVersion::Two, |reply| view.slots(reply)), expected);
        assert_eq!(written(RespVersion::Three, |reply| view.slots(reply)), expected.replace("*0", "%0"));
        assert_eq!(view.my_id(), two);
    }

    #[test]
    fn shards_tell_slots_and_node_as_maps() {
        let view = view(4, &["127.0.0.1:6379"], 0);
        let id = identifier(7, 0);
        let expected = format!(
            "*1 %2 $5 slots *2 :0 :16383 $5 nodes *1 %7 $2 id $40 {id} $4 port :6379 $2 ip $9 127.0.0.1 $8 endpoint \
             $9 127.0.0.1 $4 role $6 master $18 replication-offset :0 $6 health $6 online "
        );
        assert_eq!(written(RespVersion::Three, |reply| view.shards(reply)), expected);
        let flat = expected.replace("%2", "*4").replace("%7", "*14");
        assert_eq!(written(RespVersion::Two, |reply| view.shards(reply)), flat);
    }

    #[test]
    fn nodes_and_info_have_the_lines_of_redis() {
        let view = view(4, &["0.0.0.0:6480", "0.0.0.0:6481"], 0);
        let (one, two) = (identifier(7, 0), identifier(7, 1));
        assert_eq!(
            view.nodes_text(),
            format!(
                "{one} 10.0.0.7:6480@0 myself,master - 0 0 1 connected 0-8191\n\
                 {two} 10.0.0.7:6481@0 master - 0 0 2 connected 8192-16383\n"
            )
        );
        assert_eq!(
            view.info_text(),
            "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\ncluster_slots_pfail:0\r\n\
             cluster_slots_fail:0\r\ncluster_known_nodes:2\r\ncluster_size:2\r\ncluster_current_epoch:2\r\n\
             cluster_my_epoch:1\r\ncluster_stats_messages_sent:0\r\ncluster_stats_messages_received:0\r\n\
             total_cluster_links_buffer_limit_exceeded:0\r\n"
        );
    }

    #[test]
    fn cores_without_shards_are_nodes_without_slots_and_every_slot_has_a_node() {
        for (shards, cores) in [(1, 1), (2, 4), (7, 3), (64, 5), (5, 8)] {
            let addresses: Vec<String> = (0..cores).map(|core| format!("127.0.0.1:{}", 7000 + core)).collect();
            let view = view(shards, &addresses.iter().map(String::as_str).collect::<Vec<_>>(), 0);
            let routes = Routes::new(shards, cores);
            let mut covered = 0;
            for (core, node) in view.nodes().iter().enumerate() {
                assert!(node.ranges.len() <= 1, "{shards} shards on {cores} cores: {:?}", node.ranges);
                for slot in node.ranges.iter().flat_map(|(first, last)| *first..=*last) {
                    assert_eq!(usize::from(routes.of_slot(slot).core), core);
                    covered += 1;
                }
            }
            assert_eq!(covered, SLOT_COUNT);
            assert!(view.info_text().contains(&format!("cluster_size:{}\r\n", shards.min(cores))));
        }
    }

    #[test]
    fn a_client_of_another_core_is_sent_on_and_one_of_the_owner_is_not() {
        let view = view(2, &["[::1]:6480", "[::1]:6481"], 0);
        assert_eq!(view.moved(8192), Some("MOVED 8192 ::1:6481".to_owned()));
        assert_eq!(view.moved(8191), None);
    }

    #[test]
    fn a_listener_on_all_addresses_tells_the_one_that_the_client_came_by() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(advertised(ip("0.0.0.0"), ip("10.0.0.7")), ip("10.0.0.7"));
        assert_eq!(advertised(ip("::"), ip("::ffff:10.0.0.7")), ip("10.0.0.7"));
        assert_eq!(advertised(ip("::"), ip("fe80::1")), ip("fe80::1"));
        assert_eq!(advertised(ip("192.168.0.1"), ip("10.0.0.7")), ip("192.168.0.1"));
    }
}
