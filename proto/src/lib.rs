//! The wire: messages, clients and servers generated from `proto/holdfast/v1/*.proto`, and nothing else.
//!
//! Comments of the messages are in the `.proto` files. Validation is not here: `holdfast_format::wire`
//! is the only place that turns these messages into types of the format.

#![allow(missing_docs, clippy::all)]

/// Package `holdfast.v1`.
pub mod v1 {
    tonic::include_proto!("holdfast.v1");
}

/// The encoded `FileDescriptorSet` of all services, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
