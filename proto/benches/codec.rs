//! What a frame costs: cut and decoded as the server does it, encoded as it answers.
//!
//! `cargo bench -p hongbao-proto --bench codec`

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use hongbao_proto::frame::{Split, append, split};
use hongbao_proto::limits::CLIENT_FRAME_BYTES_MAX;
use hongbao_proto::v1::{self, client_frame::Request, server_frame::Event};
use prost::Message;

fn bench(criterion: &mut Criterion) {
    let mut wire = BytesMut::new();
    let grab = v1::ClientFrame { request_id: 1 << 40, request: Some(Request::Grab(v1::Grab { campaign_id: 7 })) };
    append(&grab, &mut wire);
    criterion.bench_function("split_and_decode_grab", |bencher| {
        bencher.iter(|| match split(black_box(&wire), CLIENT_FRAME_BYTES_MAX) {
            Ok(Split::Frame { payload, .. }) => v1::ClientFrame::decode(payload).map(|frame| frame.request_id),
            _ => Ok(0),
        });
    });
    let none_now = v1::ServerFrame { request_id: 1 << 40, event: Some(Event::NoneNow(v1::NoneNow {})) };
    let mut out = BytesMut::with_capacity(64);
    criterion.bench_function("encode_none_now", |bencher| {
        bencher.iter(|| {
            out.clear();
            append(black_box(&none_now), &mut out);
        });
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
