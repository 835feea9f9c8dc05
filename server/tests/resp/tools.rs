//! redis-cli and redis-benchmark: what they print, typed and raw, when they talk to this server.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use crate::support::servers::{program, redis_is_the_subject};
use crate::support::{directory, several_cores, Reply, Subject};

/// How long a tool may run, in seconds.
const TOOL_PATIENCE_S: &str = "120";

/// Runs redis-cli against `address`; what it printed, which must be no complaint.
#[track_caller]
fn cli(address: SocketAddr, arguments: &[&str], input: &[u8]) -> String {
    let output = run(&program("redis-cli"), address, arguments, input);
    assert!(output.status.success(), "redis-cli {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn run(program: &str, address: SocketAddr, arguments: &[&str], input: &[u8]) -> Output {
    // A tool that waits for a reply for ever must fail the test, not hold it.
    let mut child = Command::new("timeout")
        .args([TOOL_PATIENCE_S, program])
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    // It may end before it has read everything; its output tells.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("a child of ours");
    let _: std::io::Result<()> = writer.join().expect("the writer does not panic");
    output
}

#[test]
fn redis_cli_shows_replies_with_their_types() {
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--sync-writes=false"]);
    let cases: [(&[&str], &str); 27] = [
        (&["PING"], "PONG"),
        (&["PING", "a b"], "\"a b\""),
        (&["SET", "a", "1"], "OK"),
        (&["GET", "a"], "\"1\""),
        (&["GET", "nothing"], "(nil)"),
        (&["INCR", "a"], "(integer) 2"),
        (&["SET", "word", "x\n\u{7}"], "OK"),
        (&["GET", "word"], "\"x\\n\\a\""),
        (&["INCR", "word"], "(error) ERR value is not an integer or out of range"),
        (&["MGET", "a", "nothing"], "1) \"2\"\n2) (nil)"),
        (&["EXISTS", "a", "a", "nothing"], "(integer) 2"),
        (&["TTL", "a"], "(integer) -1"),
        (&["TYPE", "a"], "string"),
        (&["KEYS", "a*"], "1) \"a\""),
        (&["KEYS", "z*"], "(empty array)"),
        (&["SCAN", "0", "TYPE"], "(error) ERR syntax error"),
        (&["GET"], "(error) ERR wrong number of arguments for 'get' command"),
        (&["SET", "a", "1", "NOPE"], "(error) ERR syntax error"),
        (&["NOPE", "a"], "(error) ERR unknown command 'NOPE', with args beginning with: 'a' "),
        (&["SET", "a", "1", "EX", "0"], "(error) ERR invalid expire time in 'set' command"),
        (&["ECHO", ""], "\"\""),
        (&["APPEND", "a", "0"], "(integer) 2"),
        (&["INCRBYFLOAT", "a", "0.25"], "\"20.25\""),
        (&["COMMAND", "GETKEYS", "MSET", "a", "1", "b", "2"], "1) \"a\"\n2) \"b\""),
        (&["CONFIG", "GET", "maxmemory-policy"], "1) \"maxmemory-policy\"\n2) \"noeviction\""),
        (&["-3", "CONFIG", "GET", "maxmemory-policy"], "1# \"maxmemory-policy\" => \"noeviction\""),
        (&["-3", "GET", "nothing"], "(nil)"),
    ];
    for (arguments, shown) in cases {
        let all: Vec<&str> = ["--no-raw"].iter().chain(arguments).copied().collect();
        assert_eq!(cli(subject.address(), &all, b"").trim_end_matches('\n'), shown, "{arguments:?}");
    }
    assert_eq!(cli(subject.address(), &["--raw", "GET", "word"], b""), "x\n\u{7}\n");
    assert_eq!(cli(subject.address(), &["--raw", "GET", "nothing"], b""), "\n");
    assert_eq!(cli(subject.address(), &["--csv", "MGET", "a", "nothing"], b""), "\"20.25\",NULL\n");
}

#[test]
fn redis_cli_takes_commands_and_values_from_its_input() {
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--sync-writes=false"]);
    let address = subject.address();
    assert_eq!(cli(address, &[], b"SET k \"two words\"\nGET k\nSTRLEN k\n"), "OK\ntwo words\n9\n");
    assert_eq!(cli(address, &["-x", "SET", "file"], &[7; 100_000]), "OK\n");
    assert_eq!(cli(address, &["STRLEN", "file"], b""), "100000\n");
    assert_eq!(cli(address, &["-r", "5", "INCR", "five"], b""), "1\n2\n3\n4\n5\n");
    assert_eq!(cli(address, &["-n", "0", "GET", "five"], b""), "5\n");
    // Mass insertion: raw protocol in, and a count of the replies out.
    let mut commands = Vec::new();
    for number in 0..5_000 {
        crate::support::resp::put_command(&mut commands, &["SET", &format!("mass:{number}"), "v"]);
    }
    let said = cli(address, &["--pipe"], &commands);
    assert!(said.contains("errors: 0, replies: 5000"), "{said}");
    assert_eq!(cli(address, &["DBSIZE"], b""), "5003\n");
}

#[test]
fn redis_cli_finds_its_way_through_the_keys() {
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--sync-writes=false"]);
    let (address, mut client) = (subject.address(), subject.connect());
    for number in 0..300 {
        client.must(&format!("SET key:{number} {}", "x".repeat(number)));
    }
    let mut keys: Vec<String> =
        cli(address, &["--scan", "--pattern", "key:1?"], b"").lines().map(str::to_owned).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys, (10..20).map(|number| format!("key:{number}")).collect::<Vec<_>>());
    assert!(cli(address, &["--scan"], b"").lines().count() >= 300);
    let said = cli(address, &["--bigkeys"], b"");
    assert!(said.contains("Sampled 300 keys in the keyspace!"), "{said}");
    assert!(said.contains("Biggest string found '\"key:299\"' has 299 bytes"), "{said}");
    let said = cli(address, &["--memkeys"], b"");
    assert!(said.contains("Sampled 300 keys in the keyspace!"), "{said}");
}

#[test]
fn redis_cli_follows_the_cluster() {
    let directory = directory();
    let subject =
        Subject::start_cluster(directory.path(), &["--sync-writes=false", "--cores", &several_cores().to_string()]);
    for number in 0..50 {
        let key = format!("key:{number}");
        assert_eq!(cli(subject.address(), &["-c", "SET", &key, &key], b""), "OK\n");
        assert_eq!(cli(subject.address(), &["-c", "GET", &key], b""), format!("{key}\n"));
    }
    let said = cli(subject.address(), &["CLUSTER", "INFO"], b"");
    for line in ["cluster_state:ok", "cluster_slots_assigned:16384", "cluster_slots_ok:16384"] {
        assert!(said.contains(line), "{said}");
    }
    assert_eq!(cli(subject.address(), &["CLUSTER", "KEYSLOT", "user:{123}"], b""), "5970\n");
}

#[track_caller]
fn benchmark(address: SocketAddr, arguments: &[&str]) -> String {
    let output = run(&program("redis-benchmark"), address, arguments, b"");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "redis-benchmark {arguments:?}: {said}");
    // It prints errors of the server and goes on; it warns where it cannot read what it reads for its report.
    for complaint in ["Error", "ERR", "WARNING", "Could not"] {
        assert!(!said.contains(complaint), "redis-benchmark {arguments:?}: {said}");
    }
    said
}

#[test]
fn redis_benchmark_runs_to_its_end_without_a_complaint() {
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--sync-writes=false"]);
    let tests = ["ping", "set", "get", "incr", "mset"];
    let said = benchmark(subject.address(), &["-t", &tests.join(","), "-n", "4800", "-c", "20", "-P", "16", "-q"]);
    for name in ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"] {
        assert!(said.contains(&format!("{name}: ")), "{said}");
    }
    // Each request counted once.
    assert_eq!(subject.connect().say("GET counter:__rand_int__"), Reply::bulk("4800"));
    let said =
        benchmark(subject.address(), &["-t", "set,get", "-n", "2000", "-c", "5", "-r", "1000", "-d", "300", "--csv"]);
    assert!(said.contains("\"SET\",") && said.contains("\"GET\","), "{said}");
    benchmark(subject.address(), &["-n", "2000", "-P", "8", "-q", "-3", "-t", "get"]);
    benchmark(subject.address(), &["-n", "1000", "-P", "8", "-q", "-r", "100", "GETSET", "key:__rand_int__", "v"]);
}

#[test]
fn redis_benchmark_knows_the_cores_as_a_cluster() {
    // It refuses a cluster of one, which redis-server is here, and so is a machine of one processor.
    if redis_is_the_subject() || several_cores() == 1 {
        return;
    }
    let directory = directory();
    let subject = Subject::start_cluster(directory.path(), &["--sync-writes=false", "--cores", "2", "--shards", "8"]);
    let forwarded = subject.forwarded();
    let arguments = ["--cluster", "-t", "set,get", "-n", "4000", "-c", "10", "-P", "4", "-r", "1000", "-q"];
    // Whatever the cluster says, it takes the address that it was given for the node that is `myself`: it must
    // be a core's own.
    let said = benchmark(subject.core_addresses()[0], &arguments);
    assert!(said.contains("SET: ") && said.contains("GET: "), "{said}");
    assert_eq!(subject.forwarded(), forwarded, "it sent each key to the core that owns it");
}
