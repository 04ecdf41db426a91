//! A TCP transfer through `smoltcp`'s loopback: sockets, packets and buffers in memory of the manager.
//!
//! A client sends a file, a server sums up what it receives; the runner compares lengths and CRC-32.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use crc32fast::Hasher;
use rtmm_examples_crates::board::{self, MM, say};
use rtmm_examples_crates::{input, job};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Loopback, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

/// As much of a file as is sent.
const MOST: usize = 1 << 20;
/// A socket's buffer in each direction.
const BUFFER: usize = 16 << 10;
const PORT: u16 = 80;
const CLIENT_PORT: u16 = 49_152;
/// The most that time moves in a round: far less than what makes a socket send something again.
const STEP: Duration = Duration::from_millis(10);
/// Rounds of the interface after which a transfer that is not over never will be.
const PATIENCE: usize = 100_000;

board::entry!(main);

fn main() {
    job::run("tcp", work);
}

fn work() -> Result<(), &'static str> {
    let file = input::read(MOST)?;
    let mut device = Loopback::new(Medium::Ip);
    // Simulated time, which moves only while both sides wait: the wire is as fast as the processor.
    let mut now = Instant::ZERO;
    let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut device, now);
    let address = IpAddress::v4(127, 0, 0, 1);
    interface.update_ip_addrs(|list| _ = list.push(IpCidr::new(address, 8)));

    let mut sockets = SocketSet::new(Vec::new());
    let mut server = socket();
    server.listen(PORT).map_err(|_| "the server cannot listen")?;
    let server = sockets.add(server);
    let client = sockets.add(socket());
    let socket = sockets.get_mut::<tcp::Socket>(client);
    socket.connect(interface.context(), (address, PORT), CLIENT_PORT).map_err(|_| "the client cannot connect")?;

    let (mut sent, mut received, mut crc, mut rounds) = (0, 0, Hasher::new(), 0);
    let mut least_free = usize::MAX;
    while !(sockets.get::<tcp::Socket>(client).state() == tcp::State::Closed && received == file.len()) {
        rounds += 1;
        if rounds > PATIENCE {
            return Err("the transfer does not come to its end");
        }
        interface.poll(now, &mut device, &mut sockets);
        least_free = least_free.min(MM.free_page_count());

        let socket = sockets.get_mut::<tcp::Socket>(client);
        if socket.can_send() && sent < file.len() {
            sent += socket.send_slice(&file[sent..]).map_err(|_| "the client cannot send")?;
        }
        if sent == file.len() && socket.may_send() {
            socket.close();
        }
        let socket = sockets.get_mut::<tcp::Socket>(server);
        while socket.can_recv() {
            let take = |bytes: &mut [u8]| {
                crc.update(bytes);
                (bytes.len(), bytes.len())
            };
            received += socket.recv(take).map_err(|_| "the server cannot receive")?;
        }
        if received == file.len() && socket.state() == tcp::State::CloseWait {
            socket.close();
        }
        now += interface.poll_delay(now, &sockets).unwrap_or(STEP).min(STEP);
    }
    say!("LENGTH received {}", received);
    say!("CRC32 received {:08x}", crc.finalize());
    say!("{} rounds, {} ms of its own time, {} pages free at least", rounds, now.total_millis(), least_free);
    Ok(())
}

/// A socket with buffers on the heap.
fn socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
    tcp::Socket::new(buffer(), buffer())
}
