//! Scenarios as text: commands, and below each what came of it.
//!
//! A line that begins with `>` is a command to the cluster, `#` a remark; what stands between is output. When that
//! has changed on purpose, `EYOT_BLESS=1 cargo test -p eyot-raft-glue --test scripts` writes it anew, and the change
//! is judged where it is read: in the difference.

mod harness;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use eyot_raft_glue::{Event, Fate, Index, Membership, MembershipChange, PeerId, ReadKind, Recovered, Role, Settings};
use harness::{settings, Cluster};

/// One scenario that is being run.
struct Script {
    cluster: Cluster,
    settings: Settings,
    output: String,
}

fn peers(list: &[PeerId]) -> String {
    list.iter().map(|peer| peer.0.to_string()).collect::<Vec<_>>().join(" ")
}

fn membership(membership: &Membership) -> String {
    let mut text = format!("voters {}", peers(&membership.voters));
    for (name, list) in [("learners", &membership.learners), ("outgoing", &membership.outgoing)] {
        if !list.is_empty() {
            let _ = write!(text, ", {name} {}", peers(list));
        }
    }
    text
}

fn event(event: &Event) -> String {
    match event {
        Event::RoleChanged { role, term } => match role {
            Role::Follower => format!("follower in term {}", term.0),
            Role::PreCandidate => format!("asks whether it would be elected after term {}", term.0),
            Role::Candidate => format!("candidate in term {}", term.0),
            Role::Leader => format!("leader in term {}", term.0),
        },
        Event::LeaderKnown { leader: Some(leader), term } => format!("follows {} in term {}", leader.0, term.0),
        Event::LeaderKnown { leader: None, term } => format!("knows no leader in term {}", term.0),
        Event::SnapshotWanted { peer, index } => format!("wants a snapshot at {} or later for {}", index.0, peer.0),
        Event::SnapshotOffered { from, meta } => {
            format!("is offered a snapshot at {} by {}", meta.position.index.0, from.0)
        }
        Event::SnapshotStream { to, meta } => format!("offers {} a snapshot at {}", to.0, meta.position.index.0),
        Event::MembershipChanged { index, membership: after } => {
            format!("membership at {}: {}", index.0, membership(after))
        }
        Event::TransferEnded { to, transferred: true } => format!("has handed leadership to {}", to.0),
        Event::TransferEnded { to, transferred: false } => format!("could not hand leadership to {}", to.0),
    }
}

impl Script {
    fn say(&mut self, line: &str) {
        self.output.push_str(line);
        self.output.push('\n');
    }

    /// What replicas have told since the last command.
    fn tell(&mut self) {
        let mut lines = Vec::new();
        for replica in self.cluster.replicas.values_mut() {
            let peer = replica.peer.0;
            lines.extend(replica.events.drain(..).map(|told| format!("{peer}: {}", event(&told))));
            for outcome in replica.proposals.drain(..) {
                let fate = match outcome.fate {
                    Fate::Done => "done",
                    Fate::Lost => "lost",
                    Fate::Unknown => "unknown",
                };
                let (term, index) = (outcome.position.term.0, outcome.position.index.0);
                lines.push(format!("{peer}: proposal at {index} of term {term} is {fate}"));
            }
            for outcome in replica.reads.drain(..) {
                let result =
                    outcome.result.map_or_else(|why| format!("failed, {why:?}"), |at| format!("granted at {}", at.0));
                lines.push(format!("{peer}: read {} {result}", outcome.id.0));
            }
        }
        lines.iter().for_each(|line| self.say(line));
    }

    fn show(&mut self) {
        let peers: Vec<u64> = self.cluster.replicas.keys().map(|peer| peer.0).collect();
        for peer in peers {
            let replica = self.cluster.replica(peer);
            let commands = replica.commands().join(" ");
            let line = match &replica.group {
                None => "down".to_owned(),
                Some(group) => format!(
                    "{:?} in term {}, log {} to {}, commit {}, applied {} [{commands}]",
                    group.role(),
                    group.term().0,
                    group.first().0,
                    group.last().0,
                    group.commit().0,
                    group.last_applied().0,
                ),
            };
            self.say(&format!("{peer}: {line}"));
        }
    }

    fn change(&mut self, peer: u64, words: &[&str]) {
        let step = |pair: &[&str]| {
            let other = PeerId(pair[1].parse().expect("a replica"));
            match pair[0] {
                "learner" => MembershipChange::AddLearner(other),
                "promote" => MembershipChange::Promote(other),
                "remove" => MembershipChange::Remove(other),
                other => panic!("no change {other}"),
            }
        };
        let changes: Vec<MembershipChange> = words.chunks(2).map(step).collect();
        if let Err(error) = self.cluster.change(peer, &changes) {
            self.say(&format!("refused: {error}"));
        }
        self.cluster.settle();
    }

    fn run(&mut self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let number = |place: usize| words[place].parse::<u64>().expect("a number");
        match words[0] {
            "cluster" => self.cluster = Cluster::new(number(1), words.get(2).map_or(0, |_| number(2)), &self.settings),
            "tick" => self.cluster.ticks(number(1) as usize),
            "campaign" => {
                self.cluster.starve_others(number(1));
                self.cluster.campaign(number(1));
            }
            "write" | "propose" => {
                match self.cluster.propose(number(1), words[2]) {
                    Ok(position) => self.say(&format!("proposed at {} of term {}", position.index.0, position.term.0)),
                    Err(error) => self.say(&format!("refused: {error}")),
                }
                self.cluster.settle();
            }
            "read" => {
                self.cluster.read(number(1), number(2), ReadKind::Linearizable);
                self.cluster.settle();
            }
            "isolate" => {
                let isolated: Vec<u64> = (1..words.len()).map(number).collect();
                self.cluster.isolate(&isolated);
            }
            "heal" => self.cluster.heal(),
            "crash" => self.cluster.crash(number(1), 0),
            "restart" => self.cluster.restart(number(1)),
            "snapshot" => {
                let meta = self.cluster.cut_snapshot(number(1));
                let gone = self.cluster.group(number(1)).compact(Index::MAX);
                self.say(&format!("snapshot at {}, log gone up to {}", meta.position.index.0, gone.0));
            }
            "transfer" => {
                if let Err(error) = self.cluster.group(number(1)).transfer(PeerId(number(2))) {
                    self.say(&format!("refused: {error}"));
                }
                self.cluster.settle();
            }
            "add" => {
                let settings = self.settings.clone();
                self.cluster.add(PeerId(number(1)), &settings, Recovered::joining());
            }
            "change" => self.change(number(1), &words[2..]),
            "show" => self.show(),
            other => panic!("no command {other}"),
        }
        self.tell();
    }
}

/// The script with the output that it gives now.
fn run(text: &str) -> String {
    let settings = settings();
    let mut script = Script { cluster: Cluster::new(1, 0, &settings), settings, output: String::new() };
    for line in text.lines() {
        if let Some(command) = line.strip_prefix('>') {
            script.say(line);
            script.run(command);
        } else if line.starts_with('#') || line.is_empty() {
            script.say(line);
        }
    }
    script.output
}

fn check(name: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&path).expect("the script");
    let now = run(&text);
    assert_eq!(run(&text), now, "the same script twice gives the same output");
    if std::env::var_os("EYOT_BLESS").is_some() {
        std::fs::write(&path, now).expect("the script can be written");
        return;
    }
    let help = "EYOT_BLESS=1 cargo test -p eyot-raft-glue --test scripts writes it anew";
    assert!(now == text, "{name} gives another output; {help}:\n{now}");
}

macro_rules! scripts {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })+
    };
}

scripts!(election, partition, snapshot, transfer, joint_change);
