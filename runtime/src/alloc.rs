//! The allocator of every process: memory of buffers that come and go stays for a while instead of
//! going back to the kernel at each free.
//!
//! The pipeline frees and allocates buffers of 1 to 16 MiB all the time. The C library's allocator gives
//! such memory back at once and pays page faults to get it again, or keeps much more than is in use;
//! see "Direct I/O and the allocator" in BENCHMARKS.md.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
