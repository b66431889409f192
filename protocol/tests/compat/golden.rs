//! Golden frames: one file for each API, a request and a response with their headers, checked in
//! both directions. A released version's file never changes; a new version gets a file of its own.
//! `MILLSTREAM_BLESS=1` writes files that are missing or differ.

use std::{collections::BTreeSet, fmt::Debug, fs, path::PathBuf};

use millstream_protocol::{
    ErrorCode, FRAME_HEADER_SIZE, FrameFlags, FrameHeader, Wire,
    limits::MAX_FRAME_SIZE,
    messages::{Api, ErrorReply, Request, decode_body, encode_body},
};

use crate::{
    group_samples,
    hex::{hex, unhex},
    samples,
};

const CORRELATION_ID: u64 = 0x0102_0304_0506_0708;

fn path(file: &str) -> PathBuf {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compat/golden");
    PathBuf::from(directory).join(file)
}

/// Compares a file with what it should hold.
pub fn check_file(path: &PathBuf, expected: &str) {
    let actual = fs::read_to_string(path).unwrap_or_default();
    if actual != expected && std::env::var_os("MILLSTREAM_BLESS").is_some() {
        fs::write(path, expected).expect("the source tree takes writes");
        return;
    }
    assert!(
        actual == expected,
        "{} is not\n{expected}\nIf the change is meant, run again with MILLSTREAM_BLESS=1.",
        path.display()
    );
}

fn frame<M: Wire>(
    api: u16,
    version: u16,
    flags: FrameFlags,
    message: &M,
    records: &[u8],
) -> Vec<u8> {
    let body = encode_body(message);
    let header = FrameHeader {
        api,
        version,
        flags,
        body_size: u32::try_from(body.len()).expect("small"),
        records_size: u32::try_from(records.len()).expect("small"),
        correlation_id: CORRELATION_ID,
    };
    [&header.encode()[..], &body, records].concat()
}

/// Splits a frame and decodes its body.
fn open<M: Wire>(frame: &[u8]) -> (FrameHeader, M, &[u8]) {
    let (header, rest) = frame
        .split_first_chunk::<FRAME_HEADER_SIZE>()
        .expect("a header");
    let header = FrameHeader::decode(header, MAX_FRAME_SIZE).expect("a valid header");
    assert_eq!(header.rest_size(), rest.len());
    let (body, records) = rest.split_at(header.body_size as usize);
    (header, decode_body(body).expect("a valid body"), records)
}

fn lines(frame: &[u8]) -> String {
    hex(frame)
        .as_bytes()
        .chunks(96)
        .map(|line| format!("{}\n", String::from_utf8_lossy(line)))
        .collect()
}

/// The frames of a golden file.
fn frames(text: &str) -> Vec<Vec<u8>> {
    let mut frames: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line {
            "request" | "response" => frames.push(String::new()),
            digits => frames.last_mut().expect("a heading first").push_str(digits),
        }
    }
    frames.iter().map(|digits| unhex(digits)).collect()
}

fn check<R>(request: &R, response: &R::Response, sent: &[u8], returned: &[u8]) -> Api
where
    R: Request + PartialEq + Debug,
    R::Response: PartialEq + Debug,
{
    let api = R::API;
    let number = api as u16;
    let request_frame = frame(number, 0, FrameFlags::default(), request, sent);
    let response_frame = frame(number, 0, FrameFlags::RESPONSE, response, returned);
    let file = path(&format!("{}-v0.hex", api.name()));
    let expected = format!(
        "# {} (api {number}), version 0\nrequest\n{}response\n{}",
        api.name(),
        lines(&request_frame),
        lines(&response_frame)
    );
    check_file(&file, &expected);

    let stored = frames(&fs::read_to_string(&file).expect("checked above"));
    let (header, decoded, records) = open::<R>(&stored[0]);
    assert_eq!((header.api, header.version), (number, 0));
    assert_eq!(header.flags, FrameFlags::default());
    assert_eq!(header.correlation_id, CORRELATION_ID);
    assert_eq!((&decoded, records), (request, sent));
    let (header, decoded, records) = open::<R::Response>(&stored[1]);
    assert_eq!(header.flags, FrameFlags::RESPONSE);
    assert_eq!((&decoded, records), (response, returned));
    api
}

#[test]
fn every_api_has_golden_frames() {
    let batch = samples::batch();
    let checked = [
        check(
            &samples::handshake(),
            &samples::handshake_response(),
            &[],
            &[],
        ),
        check(
            &samples::metadata(),
            &samples::metadata_response(),
            &[],
            &[],
        ),
        check(
            &samples::create_topics(),
            &samples::create_topics_response(),
            &[],
            &[],
        ),
        check(
            &samples::delete_topics(),
            &samples::delete_topics_response(),
            &[],
            &[],
        ),
        check(
            &samples::alter_topic(),
            &samples::alter_topic_response(),
            &[],
            &[],
        ),
        check(
            &samples::create_partitions(),
            &samples::create_partitions_response(),
            &[],
            &[],
        ),
        check(
            &samples::produce(),
            &samples::produce_response(),
            &batch,
            &[],
        ),
        check(&samples::fetch(), &samples::fetch_response(), &[], &batch),
        check(
            &samples::list_offsets(),
            &samples::list_offsets_response(),
            &[],
            &[],
        ),
        check(
            &samples::delete_records(),
            &samples::delete_records_response(),
            &[],
            &[],
        ),
        check(
            &samples::init_producer_id(),
            &samples::init_producer_id_response(),
            &[],
            &[],
        ),
        check(
            &samples::describe_cluster(),
            &samples::describe_cluster_response(),
            &[],
            &[],
        ),
        check(
            &samples::describe_partitions(),
            &samples::describe_partitions_response(),
            &[],
            &[],
        ),
        check(
            &group_samples::heartbeat(),
            &group_samples::heartbeat_response(),
            &[],
            &[],
        ),
        check(
            &group_samples::offset_commit(),
            &group_samples::offset_commit_response(),
            &[],
            &[],
        ),
        check(
            &group_samples::offset_fetch(),
            &group_samples::offset_fetch_response(),
            &[],
            &[],
        ),
        check(
            &group_samples::list(),
            &group_samples::list_response(),
            &[],
            &[],
        ),
        check(
            &group_samples::describe(),
            &group_samples::describe_response(),
            &[],
            &[],
        ),
        check(
            &group_samples::delete(),
            &group_samples::delete_response(),
            &[],
            &[],
        ),
        check(
            &samples::delay::produce(),
            &samples::delay::produce_response(),
            &batch,
            &[],
        ),
        check(
            &samples::delay::list(),
            &samples::delay::list_response(),
            &[],
            &[],
        ),
        check(
            &samples::delay::cancel(),
            &samples::delay::cancel_response(),
            &[],
            &[],
        ),
        check(
            &samples::delay::describe(),
            &samples::delay::describe_response(),
            &[],
            &[],
        ),
    ];
    assert_eq!(checked, Api::ALL, "each API, in order");
}

/// The answer to an API that nobody knows yet: this layout is frozen for ever.
#[test]
fn the_error_reply_is_frozen() {
    let reply = ErrorReply {
        error: ErrorCode::UnknownApi,
        message: "api 999 is unknown: this broker is older than the client".into(),
    };
    let flags = FrameFlags::RESPONSE.with(FrameFlags::ERROR);
    let bytes = frame(999, 7, flags, &reply, &[]);
    let file = path("ErrorReply.hex");
    let expected = format!(
        "# the answer to api 999 in version 7\nresponse\n{}",
        lines(&bytes)
    );
    check_file(&file, &expected);
    let stored = frames(&fs::read_to_string(&file).expect("checked above"));
    let (header, decoded, _) = open::<ErrorReply>(&stored[0]);
    assert_eq!((header.api, header.version, header.flags), (999, 7, flags));
    assert_eq!(decoded, reply);
}

#[test]
fn numbers_never_change() {
    let mut expected = String::new();
    for entry in Api::ENTRIES {
        expected += &format!("api {} {}\n", entry.number, entry.name);
    }
    for code in ErrorCode::ALL {
        let retriable = if code.is_retriable() {
            "retriable"
        } else {
            "final"
        };
        expected += &format!("error {} {code} {retriable}\n", *code as u16);
    }
    check_file(&path("numbers.txt"), &expected);
    let apis: BTreeSet<u64> = Api::ENTRIES.iter().map(|entry| entry.number).collect();
    assert_eq!(apis.len(), Api::ALL.len());
}

#[test]
fn no_golden_file_is_left_over() {
    let mut expected: BTreeSet<String> = Api::ALL
        .iter()
        .map(|api| format!("{}-v0.hex", api.name()))
        .collect();
    expected.extend(["ErrorReply.hex".to_owned(), "numbers.txt".to_owned()]);
    let actual: BTreeSet<String> = fs::read_dir(path(""))
        .expect("the directory")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(actual, expected);
    assert!(
        Api::ALL.iter().all(|api| api.max_version() == 0),
        "add files for new versions"
    );
}
