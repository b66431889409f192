//! A broker that takes everything and keeps nothing: what the generator reaches against it is what
//! the generator itself can do. Every topic is there, and every acknowledgement is a lie.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use clap::Args;
use millstream_protocol::{
    ClusterId, ErrorCode, FRAME_HEADER_SIZE, FrameFlags, FrameHeader, LeaderEpoch, Offset,
    PartitionIndex, ProducerEpoch, ProducerId, TopicId,
    limits::MAX_FRAME_SIZE,
    messages::{
        Api, BrokerInfo, DescribeClusterResponse, HandshakeResponse, InitProducerIdResponse,
        MetadataRequest, MetadataResponse, PartitionInfo, ProducePartition, ProducePartitionResult,
        ProduceRequest, ProduceResponse, TopicInfo, decode_body, encode_body,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use uuid::Uuid;

/// Records are read into as much memory, over and over.
const SCRATCH_SIZE: usize = 512 << 10;
const READ_SIZE: usize = 64 << 10;

/// Arguments of the sink.
#[derive(Clone, Debug, Args)]
pub struct NullSinkArgs {
    /// Address to listen on
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7400")]
    pub listen: SocketAddr,
    /// Partitions that every topic has
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub partitions: u32,
}

/// Takes everything until the process is ended.
///
/// # Errors
/// If the address can't be listened on.
pub async fn run(args: &NullSinkArgs) -> Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    println!(
        "taking everything, keeping nothing, on {}",
        listener.local_addr()?
    );
    serve(listener, args.partitions).await
}

async fn serve(listener: TcpListener, partitions: u32) -> Result<()> {
    let mut next_producer = 0;
    loop {
        let (socket, _) = listener.accept().await?;
        next_producer += 1;
        let session = Session {
            partitions,
            producer: ProducerId(next_producer),
        };
        tokio::spawn(async move {
            // Whatever ends a connection, the client sees it.
            let _ = session.run(socket).await;
        });
    }
}

#[derive(Clone, Copy, Debug)]
struct Session {
    partitions: u32,
    producer: ProducerId,
}

impl Session {
    async fn run(self, mut socket: TcpStream) -> Result<()> {
        socket.set_nodelay(true)?;
        let (from, mut to) = socket.split();
        let mut from = BufReader::with_capacity(READ_SIZE, from);
        let mut scratch = vec![0; SCRATCH_SIZE];
        let mut body = Vec::new();
        loop {
            let mut header = [0; FRAME_HEADER_SIZE];
            from.read_exact(&mut header).await?;
            let header = FrameHeader::decode(&header, MAX_FRAME_SIZE)?;
            body.resize(header.body_size as usize, 0);
            from.read_exact(&mut body).await?;
            let mut left = header.records_size as usize;
            while left > 0 {
                let size = left.min(SCRATCH_SIZE);
                left -= from.read(&mut scratch[..size]).await?.max(1);
            }
            let reply = self.answer(header.api, &body)?;
            let header = FrameHeader {
                flags: FrameFlags::RESPONSE,
                body_size: u32::try_from(reply.len())?,
                records_size: 0,
                ..header
            };
            let frame = [&header.encode()[..], &reply].concat();
            to.write_all(&frame).await?;
        }
    }

    fn answer(self, api: u16, body: &[u8]) -> Result<Vec<u8>> {
        let cluster_id = ClusterId(Uuid::from_u128(1));
        Ok(match Api::from_number(api) {
            Some(Api::Handshake) => encode_body(&HandshakeResponse {
                cluster_id,
                ..HandshakeResponse::default()
            }),
            Some(Api::Metadata) => {
                let request: MetadataRequest = decode_body(body)?;
                let names = request.topics.unwrap_or_default();
                encode_body(&MetadataResponse {
                    cluster_id,
                    brokers: vec![BrokerInfo::default()],
                    topics: names.iter().map(|name| self.topic(name)).collect(),
                    ..MetadataResponse::default()
                })
            }
            Some(Api::InitProducerId) => encode_body(&InitProducerIdResponse {
                producer_id: self.producer,
                producer_epoch: ProducerEpoch(0),
            }),
            Some(Api::Produce) => {
                let request: ProduceRequest = decode_body(body)?;
                encode_body(&ProduceResponse {
                    partitions: request.partitions.iter().map(taken).collect(),
                })
            }
            Some(Api::DescribeCluster) => encode_body(&DescribeClusterResponse::default()),
            _ => bail!("the sink only takes what producers send, not API {api}"),
        })
    }

    fn topic(self, name: &str) -> TopicInfo {
        let partitions = (0..self.partitions).map(|index| PartitionInfo {
            partition: PartitionIndex(index),
            leader_epoch: LeaderEpoch(1),
            ..PartitionInfo::default()
        });
        // Names are told apart by their bytes; nothing outlives the sink.
        let id = name.bytes().fold(1_u128, |id, byte| {
            id.wrapping_mul(0x0100_0000_01b3)
                .wrapping_add(u128::from(byte))
        });
        TopicInfo {
            name: name.to_owned(),
            id: TopicId(Uuid::from_u128(id)),
            partitions: partitions.collect(),
            ..TopicInfo::default()
        }
    }
}

/// "I have it", at an offset that is not known.
fn taken(partition: &ProducePartition) -> ProducePartitionResult {
    ProducePartitionResult {
        topic: partition.topic,
        partition: partition.partition,
        error: ErrorCode::None,
        base_offset: Offset(-1),
        append_time_ms: -1,
        leader_epoch: LeaderEpoch::UNKNOWN,
        ..ProducePartitionResult::default()
    }
}

#[cfg(test)]
mod tests {
    use millstream_client::{Client, ProducerRecord};

    use super::*;

    #[tokio::test]
    async fn it_takes_what_a_producer_sends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let sink = tokio::spawn(serve(listener, 2));
        let client = Client::builder(&address).connect().await.unwrap();
        let producer = client.producer().build().await.unwrap();
        for partition in [0, 1, 0] {
            let record = ProducerRecord::to("any").partition(PartitionIndex(partition));
            let delivery = producer.send(record.value("x")).await.unwrap();
            let delivered = delivery.await.unwrap();
            assert_eq!(delivered.partition, PartitionIndex(partition));
            assert_eq!(delivered.offset, Offset(-1));
        }
        sink.abort();
    }
}
