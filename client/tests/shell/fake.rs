//! A broker small enough to trust: partitions in memory, batches kept as they came, sequences
//! checked, and faults on request. Speaks the real frames over loopback.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use millstream_protocol::{
    ClusterId, ErrorCode, FRAME_HEADER_SIZE, FrameFlags, FrameHeader, LeaderEpoch, Offset,
    PartitionIndex, ProducerEpoch, ProducerId, ShardId, TopicId,
    batch::{BatchHeader, Batches, place},
    messages::*,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, watch},
    task::JoinHandle,
};
use uuid::Uuid;

use crate::coordinator::{self, Group};

type Writer = Arc<tokio::sync::Mutex<OwnedWriteHalf>>;

/// What a producer wrote.
#[derive(Debug, Default)]
struct Sequences {
    next: i32,
    /// Base offset of each batch, by its first sequence.
    bases: BTreeMap<i32, i64>,
}

/// One partition.
#[derive(Debug, Default)]
pub struct Partition {
    pub shard: u32,
    pub epoch: i32,
    pub log_start: i64,
    pub end: i64,
    /// Whole batches, placed.
    pub batches: Vec<Vec<u8>>,
    sequences: BTreeMap<ProducerId, Sequences>,
}

#[derive(Debug, Default)]
pub struct State {
    pub topics: BTreeMap<String, (TopicId, Vec<Partition>)>,
    /// Shards that connections asked for.
    pub wanted_shards: Vec<u32>,
    pub produce_requests: usize,
    pub metadata_requests: usize,
    /// Append so many of the next produce requests, and break the connection instead of answering.
    pub break_after_produce: usize,
    /// Neither read nor answer so many of the next produce requests.
    pub ignore_produce: usize,
    pub group: Group,
    next_id: u64,
    next_producer: i64,
}

#[derive(Clone)]
pub struct Fake {
    pub address: String,
    state: Arc<Mutex<State>>,
    appended: Arc<Notify>,
    answered: Arc<Notify>,
    /// Rises to end every connection.
    generation: Arc<watch::Sender<u64>>,
    accepting: Arc<JoinHandle<()>>,
}

impl Fake {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::serve(listener, Arc::default())
    }

    fn serve(listener: TcpListener, state: Arc<Mutex<State>>) -> Self {
        let address = listener.local_addr().expect("bound").to_string();
        let appended = Arc::new(Notify::new());
        let answered = Arc::new(Notify::new());
        let generation = Arc::new(watch::Sender::new(0));
        let session = Session {
            state: Arc::clone(&state),
            appended: Arc::clone(&appended),
            answered: Arc::clone(&answered),
        };
        let ended = Arc::clone(&generation);
        let accepting = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let mut ended = ended.subscribe();
                let session = session.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = session.run(socket) => {}
                        _ = ended.changed() => {}
                    }
                });
            }
        });
        Self {
            address,
            state,
            appended,
            answered,
            generation,
            accepting: Arc::new(accepting),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under the lock")
    }

    /// Waits until a commit was answered.
    pub async fn answered(&self) {
        self.answered.notified().await;
    }

    /// Ends every connection; new ones are welcome.
    pub fn break_connections(&self) {
        self.generation.send_modify(|it| *it += 1);
    }

    /// Ends, listener included, and starts again at the same address after `pause`.
    pub async fn restart(self, pause: Duration) -> Self {
        self.accepting.abort();
        self.break_connections();
        tokio::time::sleep(pause).await;
        let listener = loop {
            match TcpListener::bind(&self.address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        Self::serve(listener, self.state)
    }

    pub fn create(&self, name: &str, shards: &[u32]) {
        let mut state = self.state();
        state.next_id += 1;
        let id = TopicId(Uuid::from_u128(u128::from(state.next_id)));
        let partition = |shard: &u32| Partition {
            shard: *shard,
            epoch: 1,
            ..Partition::default()
        };
        let partitions = shards.iter().map(partition).collect();
        state.topics.insert(name.to_owned(), (id, partitions));
    }

    /// Changes one partition, and wakes who waits for records.
    pub fn change<T>(
        &self,
        topic: &str,
        index: usize,
        change: impl FnOnce(&mut Partition) -> T,
    ) -> T {
        let mut state = self.state();
        let (_, partitions) = state.topics.get_mut(topic).expect("a topic");
        let changed = change(&mut partitions[index]);
        drop(state);
        self.appended.notify_waiters();
        changed
    }
}

impl State {
    fn partition(&mut self, topic: TopicId, index: PartitionIndex) -> Option<&mut Partition> {
        let mut topics = self.topics.values_mut();
        let (_, partitions) = topics.find(|(id, _)| *id == topic)?;
        partitions.get_mut(index.0 as usize)
    }

    fn topic_info(&self, name: &str) -> TopicInfo {
        let Some((id, partitions)) = self.topics.get(name) else {
            return TopicInfo {
                error: ErrorCode::UnknownTopic,
                name: name.to_owned(),
                ..TopicInfo::default()
            };
        };
        let partitions = partitions.iter().zip(0..).map(|(it, index)| PartitionInfo {
            partition: PartitionIndex(index),
            leader_epoch: LeaderEpoch(it.epoch),
            shard: ShardId(it.shard),
            ..PartitionInfo::default()
        });
        TopicInfo {
            name: name.to_owned(),
            id: *id,
            partitions: partitions.collect(),
            ..TopicInfo::default()
        }
    }
}

impl Partition {
    pub fn append(&mut self, bytes: &[u8]) -> (ErrorCode, i64) {
        let header = BatchHeader::decode(bytes).expect("a batch");
        if header.has_producer() {
            let known = self.sequences.entry(header.producer_id).or_default();
            if let Some(base) = known.bases.get(&header.base_sequence) {
                return (ErrorCode::None, *base);
            }
            if header.base_sequence != known.next {
                return (ErrorCode::OutOfOrderSequence, -1);
            }
            known.bases.insert(known.next, self.end);
            known.next += i32::try_from(header.record_count).expect("few");
        }
        let base = self.end;
        let mut batch = bytes.to_vec();
        place(&mut batch, Offset(base), LeaderEpoch(self.epoch));
        self.batches.push(batch);
        self.end += i64::from(header.record_count);
        (ErrorCode::None, base)
    }

    /// Batches from the one that holds `offset` on.
    fn read(&self, offset: i64, max_bytes: u32) -> Vec<u8> {
        let mut bytes: Vec<u8> = Vec::new();
        for batch in &self.batches {
            let header = BatchHeader::decode(batch).expect("a batch");
            if header.next_offset().0 <= offset {
                continue;
            }
            if !bytes.is_empty() && bytes.len() + batch.len() > max_bytes as usize {
                break;
            }
            bytes.extend_from_slice(batch);
        }
        bytes
    }
}

#[derive(Clone)]
struct Session {
    state: Arc<Mutex<State>>,
    appended: Arc<Notify>,
    answered: Arc<Notify>,
}

/// Whether a connection goes on.
enum Next {
    Answer(Vec<u8>, Vec<u8>),
    Silence,
    Break,
}

fn reply<M: millstream_protocol::Wire>(message: &M) -> Next {
    Next::Answer(encode_body(message), Vec::new())
}

impl Session {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under the lock")
    }

    async fn run(self, socket: TcpStream) -> std::io::Result<()> {
        socket.set_nodelay(true)?;
        let (mut from, to) = socket.into_split();
        let to: Writer = Arc::new(tokio::sync::Mutex::new(to));
        loop {
            let (header, body, records) = read_frame(&mut from).await?;
            let api = Api::from_number(header.api).expect("a known API");
            if api == Api::Fetch {
                // A long poll must not hold back what follows.
                let (session, to) = (self.clone(), Arc::clone(&to));
                tokio::spawn(async move {
                    let (body, records) = session.fetch(&body).await;
                    // A client that left is its own business.
                    drop(write_frame(&to, header, &body, &records).await);
                });
                continue;
            }
            if api == Api::GroupHeartbeat {
                let (session, to) = (self.clone(), Arc::clone(&to));
                tokio::spawn(async move {
                    let request = decode_body(&body).expect("valid");
                    tokio::time::sleep(coordinator::wait_of(&request)).await;
                    let body = encode_body(&coordinator::heartbeat(&session.state(), &request));
                    drop(write_frame(&to, header, &body, &[]).await);
                });
                continue;
            }
            match self.answer(api, &body, &records) {
                Next::Answer(body, records) => write_frame(&to, header, &body, &records).await?,
                Next::Silence => {}
                Next::Break => return Ok(()),
            }
        }
    }

    fn answer(&self, api: Api, body: &[u8], records: &[u8]) -> Next {
        let mut state = self.state();
        match api {
            Api::Handshake => {
                let request: HandshakeRequest = decode_body(body).expect("valid");
                state.wanted_shards.push(request.wanted_shard);
                reply(&HandshakeResponse {
                    cluster_id: ClusterId(Uuid::from_u128(9)),
                    ..HandshakeResponse::default()
                })
            }
            Api::Metadata => {
                let request: MetadataRequest = decode_body(body).expect("valid");
                state.metadata_requests += 1;
                let names = request.topics;
                let names = names.unwrap_or_else(|| state.topics.keys().cloned().collect());
                reply(&MetadataResponse {
                    cluster_id: ClusterId(Uuid::from_u128(9)),
                    brokers: vec![BrokerInfo::default()],
                    topics: names.iter().map(|name| state.topic_info(name)).collect(),
                    ..MetadataResponse::default()
                })
            }
            Api::InitProducerId => {
                state.next_producer += 1;
                reply(&InitProducerIdResponse {
                    producer_id: ProducerId(state.next_producer),
                    producer_epoch: ProducerEpoch(0),
                })
            }
            Api::Produce => self.produce(&mut state, body, records),
            Api::ListOffsets => {
                let request: ListOffsetsRequest = decode_body(body).expect("valid");
                let results = request.partitions.iter().map(|it| list(&mut state, it));
                reply(&ListOffsetsResponse {
                    partitions: results.collect(),
                })
            }
            Api::OffsetCommit => {
                let request = decode_body(body).expect("valid");
                let response = coordinator::commit(&mut state.group, request);
                self.answered.notify_waiters();
                reply(&response)
            }
            Api::OffsetFetch => {
                let request = decode_body(body).expect("valid");
                reply(&coordinator::fetch(&state.group, request))
            }
            other => panic!("{other:?} is not needed here"),
        }
    }

    fn produce(&self, state: &mut State, body: &[u8], mut records: &[u8]) -> Next {
        state.produce_requests += 1;
        if state.ignore_produce > 0 {
            state.ignore_produce -= 1;
            return Next::Silence;
        }
        let request: ProduceRequest = decode_body(body).expect("valid");
        let mut results = Vec::new();
        for it in request.partitions {
            let (bytes, rest) = records.split_at(it.records_size as usize);
            records = rest;
            let (header, _) = Batches::checked(bytes).next().expect("one").expect("valid");
            assert_eq!(
                header.size as usize,
                bytes.len(),
                "one batch for each partition"
            );
            let mut result = ProducePartitionResult {
                topic: it.topic,
                partition: it.partition,
                append_time_ms: -1,
                leader_epoch: LeaderEpoch::UNKNOWN,
                ..ProducePartitionResult::default()
            };
            match state.partition(it.topic, it.partition) {
                None => result.error = ErrorCode::UnknownTopic,
                Some(partition) if partition.epoch != it.leader_epoch.0 => {
                    result.error = ErrorCode::NotLeader;
                    result.leader_epoch = LeaderEpoch(partition.epoch);
                    result.shard = ShardId(partition.shard);
                }
                Some(partition) => {
                    let (error, base_offset) = partition.append(bytes);
                    result.error = error;
                    result.base_offset = Offset(base_offset);
                }
            }
            results.push(result);
        }
        self.appended.notify_waiters();
        if state.break_after_produce > 0 {
            state.break_after_produce -= 1;
            return Next::Break;
        }
        reply(&ProduceResponse {
            partitions: results,
        })
    }

    async fn fetch(&self, body: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let request: FetchRequest = decode_body(body).expect("valid");
        let wait = Duration::from_millis(u64::from(request.max_wait_ms));
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let appended = self.appended.notified();
            let (response, records) = self.read(&request);
            let news = response
                .partitions
                .iter()
                .any(|it| it.error != ErrorCode::None);
            let enough = records.len() >= request.min_bytes as usize;
            if enough || news || tokio::time::timeout_at(deadline, appended).await.is_err() {
                return (encode_body(&response), records);
            }
        }
    }

    fn read(&self, request: &FetchRequest) -> (FetchResponse, Vec<u8>) {
        let mut state = self.state();
        let mut response = FetchResponse::default();
        let mut records = Vec::new();
        for it in &request.partitions {
            let mut result = FetchPartitionResult {
                topic: it.topic,
                partition: it.partition,
                ..FetchPartitionResult::default()
            };
            if let Some(partition) = state.partition(it.topic, it.partition) {
                result.high_watermark = Offset(partition.end);
                result.log_start_offset = Offset(partition.log_start);
                result.leader_epoch = LeaderEpoch(partition.epoch);
                result.shard = ShardId(partition.shard);
                let known = it.leader_epoch;
                if known != LeaderEpoch::UNKNOWN && known.0 != partition.epoch {
                    result.error = ErrorCode::NotLeader;
                } else if !(partition.log_start..=partition.end).contains(&it.fetch_offset.0) {
                    result.error = ErrorCode::OffsetOutOfRange;
                } else {
                    let left = request
                        .max_bytes
                        .saturating_sub(u32::try_from(records.len()).expect("few"));
                    let bytes = partition.read(it.fetch_offset.0, it.max_bytes.min(left));
                    result.records_size = u32::try_from(bytes.len()).expect("few");
                    records.extend_from_slice(&bytes);
                }
            } else {
                result.error = ErrorCode::UnknownTopic;
            }
            response.partitions.push(result);
        }
        (response, records)
    }
}

fn list(state: &mut State, it: &ListOffsetsPartition) -> ListOffsetsResult {
    let mut result = ListOffsetsResult {
        topic: it.topic,
        partition: it.partition,
        timestamp_ms: -1,
        ..ListOffsetsResult::default()
    };
    let Some(partition) = state.partition(it.topic, it.partition) else {
        result.error = ErrorCode::UnknownTopic;
        return result;
    };
    result.offset = match it.timestamp_ms {
        EARLIEST_TIMESTAMP => Offset(partition.log_start),
        LATEST_TIMESTAMP => Offset(partition.end),
        timestamp_ms => {
            let headers = partition.batches.iter();
            let mut headers = headers.map(|it| BatchHeader::decode(it).expect("a batch"));
            match headers.find(|it| it.max_timestamp_ms >= timestamp_ms) {
                None => Offset(partition.end),
                Some(header) => {
                    result.timestamp_ms = header.max_timestamp_ms;
                    header.base_offset
                }
            }
        }
    };
    result
}

async fn read_frame(from: &mut OwnedReadHalf) -> std::io::Result<(FrameHeader, Vec<u8>, Vec<u8>)> {
    let mut header = [0; FRAME_HEADER_SIZE];
    from.read_exact(&mut header).await?;
    let header = FrameHeader::decode(&header, u32::MAX).expect("a frame");
    let mut body = vec![0; header.body_size as usize];
    from.read_exact(&mut body).await?;
    let mut records = vec![0; header.records_size as usize];
    from.read_exact(&mut records).await?;
    Ok((header, body, records))
}

async fn write_frame(
    to: &Writer,
    request: FrameHeader,
    body: &[u8],
    records: &[u8],
) -> std::io::Result<()> {
    let header = FrameHeader {
        flags: FrameFlags::RESPONSE,
        body_size: u32::try_from(body.len()).expect("small"),
        records_size: u32::try_from(records.len()).expect("small"),
        ..request
    };
    let frame = [&header.encode()[..], body, records].concat();
    to.lock().await.write_all(&frame).await
}
