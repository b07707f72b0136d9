//! What a turn costs: it must be nothing next to the two system calls of its request.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hongbao_sim::clock::SECOND;
use hongbao_sim::machine::wire::GrabTemplate;
use hongbao_sim::schedule::{Schedule, Spread, Turns};

const EPOCH: u64 = 1_800_000_000 * SECOND;

fn turn(c: &mut Criterion) {
    let mut schedule = Schedule::default();
    for (second, qps) in [(0, 5_000), (20, 10_000), (40, 60_000)] {
        schedule.announce(EPOCH + second * SECOND, qps, EPOCH - 1).expect("changes are in order");
    }
    let mut group = c.benchmark_group("schedule");
    group.throughput(Throughput::Elements(1));
    for total in [15_000, 1_000_000] {
        let mut turns = Turns::new(Spread::new(total), 0, total / 4 - 1);
        group.bench_function(format!("turn_of_{total}_users"), |bencher| {
            bencher.iter(|| black_box(turns.take(&schedule)));
        });
    }
    group.bench_function("due", |bencher| {
        let mut request = 0;
        bencher.iter(|| {
            request += 1;
            black_box(schedule.due(black_box(request)))
        });
    });
    group.bench_function("grab_frame", |bencher| {
        let template = GrabTemplate::new(0);
        let mut id = 1 << 60;
        bencher.iter(|| {
            id += 1;
            black_box(template.frame(black_box(id)))
        });
    });
    group.finish();
}

criterion_group!(benches, turn);
criterion_main!(benches);
