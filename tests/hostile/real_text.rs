//! A million lines and more of this machine's own texts, through `produce` into one partition and
//! back with `consume`, byte for byte, before and after a restart.
//!
//! `cargo test --test hostile -- --ignored real_text --nocapture`; `MILLSTREAM_TEXT_DIRS=DIR:DIR`
//! reads other directories than `/usr/share`, `/usr/include` and `/var/lib/dpkg`.

use std::{
    fs::{self, File},
    io::{BufReader, BufWriter, Read as _, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
};

use crate::broker::Broker;

/// Enough.
const LINES: usize = 1_200_000;
/// Larger files are pictures and archives, not texts.
const FILE_SIZE_MAX: u64 = 4 << 20;
/// A longer line is no record that a topic takes by default.
const LINE_SIZE_MAX: usize = 512 << 10;

/// What tempts a careless reader, and may be missing elsewhere. No line feed at the end.
const AWKWARD: &[u8] =
    b"carriage return\r\n\r\n\n\n\xff\xfe\xc3\x28 broken\nNUL \0 and \x1b[0m\n\r\rend\r";

/// Lines that were gathered, of a kind that matters.
#[derive(Debug, Default)]
struct Gathered {
    files: usize,
    lines: usize,
    bytes: usize,
    carriage_returns: usize,
    empty: usize,
    not_utf8: usize,
}

impl Gathered {
    fn add(&mut self, text: &[u8]) {
        self.files += 1;
        self.bytes += text.len();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            self.lines += 1;
            self.carriage_returns += usize::from(line.ends_with(b"\r\n"));
            self.empty += usize::from(line == b"\n");
            self.not_utf8 += usize::from(std::str::from_utf8(line).is_err());
        }
    }
}

fn gather(into: &Path) -> Gathered {
    let dirs = std::env::var("MILLSTREAM_TEXT_DIRS");
    let dirs = dirs.unwrap_or_else(|_| "/var/lib/dpkg:/usr/include:/usr/share".to_owned());
    let mut out = BufWriter::new(File::create(into).expect("a scratch file"));
    let mut gathered = Gathered::default();
    for dir in dirs.split(':') {
        gather_below(Path::new(dir), &mut out, &mut gathered);
    }
    assert!(
        gathered.lines >= 1_000_000,
        "only {gathered:?}: name more directories in MILLSTREAM_TEXT_DIRS"
    );
    out.flush().expect("room on the disk");
    gathered
}

fn gather_below(dir: &Path, out: &mut impl std::io::Write, gathered: &mut Gathered) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if gathered.lines >= LINES {
            return;
        }
        let Ok(kind) = path.symlink_metadata() else {
            continue;
        };
        if kind.is_dir() {
            gather_below(&path, out, gathered);
        } else if kind.is_file() && kind.len() <= FILE_SIZE_MAX {
            let Ok(mut text) = fs::read(&path) else {
                continue;
            };
            let longest = text.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
            if longest.unwrap_or(0) > LINE_SIZE_MAX {
                continue;
            }
            if text.last().is_some_and(|byte| *byte != b'\n') {
                text.push(b'\n');
            }
            // Each file is followed by something awkward, whose last line the next one goes on with.
            text.extend_from_slice(AWKWARD);
            out.write_all(&text).expect("room on the disk");
            gathered.add(&text);
        }
    }
}

/// Reads the topic and compares it with the file as it comes. How long it took, in seconds.
fn read_back(broker: &Broker, file: &Path) -> f64 {
    let begun = Instant::now();
    let mut child = broker
        .command(&["consume", "text"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut came = BufReader::with_capacity(1 << 20, child.stdout.take().expect("piped"));
    let mut sent = BufReader::with_capacity(1 << 20, File::open(file).expect("our own file"));
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    loop {
        let size = came.read(&mut a).expect("a pipe");
        if size == 0 {
            break;
        }
        sent.read_exact(&mut b[..size])
            .expect("no more than was sent");
        assert!(
            a[..size] == b[..size],
            "differs in the {size} bytes from {at}"
        );
        at += size;
    }
    let left = sent.read(&mut b).expect("our own file");
    assert_eq!(left, 0, "{at} bytes came, more were sent");
    assert!(child.wait().expect("it ends").success());
    begun.elapsed().as_secs_f64()
}

#[test]
#[ignore = "long; reads this machine's own texts"]
fn a_million_lines_come_back_byte_for_byte() {
    let Some(mut broker) = Broker::start(&[]) else {
        return;
    };
    let file = broker.scratch().join("text");
    let gathered = gather(&file);
    println!("{gathered:?}");
    assert!(gathered.carriage_returns > 0 && gathered.empty > 0 && gathered.not_utf8 > 0);
    broker.run(&["topic", "create", "text"]);
    let begun = Instant::now();
    let produced = broker
        .command(&["produce", "text", "--partition", "0"])
        .stdin(File::open(&file).expect("our own file"))
        .output()
        .expect("the binary runs");
    assert!(produced.status.success(), "{produced:?}");
    println!("produced in {:.1} s", begun.elapsed().as_secs_f64());
    println!("read back in {:.1} s", read_back(&broker, &file));
    broker.stop();
    broker.start_again(&[]);
    println!("after a restart in {:.1} s", read_back(&broker, &file));
    broker.kill();
    broker.start_again(&["--shards", "3"]);
    println!("after a kill in {:.1} s", read_back(&broker, &file));
}
