//! Connections on which little is under way that nobody has read yet: what a run that is killed has not read comes once more. The
//! system by itself lets some ten megabytes wait where packing is slower than the network.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::net::sockopt::set_socket_recv_buffer_size;
use ureq::Error;
use ureq::unversioned::transport::time::Duration as Seconds;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};

/// The system takes twice that, of which a part is its own. Over 20 ms it still lets 20 MB/s through.
const WAITING_BYTES: usize = 384 << 10;

/// Connects where no proxy has.
#[derive(Debug)]
pub(super) struct Connect;

impl<In: Transport> Connector<In> for Connect {
    type Out = Either<In, Socket>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        if let Some(chained) = chained {
            return Ok(Some(Either::A(chained)));
        }
        let mut refused = Error::Io(ErrorKind::ConnectionRefused.into());
        for address in &details.addrs {
            let opened = match details.timeout.not_zero() {
                Some(timeout) => TcpStream::connect_timeout(address, *timeout),
                None => TcpStream::connect(address),
            };
            match opened {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    // Without it more is fetched twice, and nothing is wrong.
                    set_socket_recv_buffer_size(&stream, WAITING_BYTES).ok();
                    let config = details.config;
                    let (input, output) = (config.input_buffer_size(), config.output_buffer_size());
                    return Ok(Some(Either::B(Socket {
                        stream,
                        buffers: LazyBuffers::new(input, output),
                    })));
                }
                Err(error) => refused = told(error, details.timeout),
            }
        }
        Err(refused)
    }
}

/// The shorter of two: of the whole request, and of this step.
fn limit(timeout: NextTimeout, step: Option<Seconds>) -> Option<Duration> {
    let both = [timeout.not_zero(), step];
    both.into_iter().flatten().map(|limit| *limit).min()
}

fn told(error: std::io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Error::Timeout(timeout.reason),
        _ => Error::Io(error),
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    buffers: LazyBuffers,
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream
            .set_write_timeout(limit(timeout, timeout.per_write))?;
        let sent = self.stream.write_all(&self.buffers.output()[..amount]);
        sent.map_err(|error| told(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream
            .set_read_timeout(limit(timeout, timeout.per_read))?;
        let input = self.buffers.input_append_buf();
        let read = self
            .stream
            .read(input)
            .map_err(|error| told(error, timeout))?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        let is_quiet = |stream: &TcpStream| {
            stream.set_nonblocking(true)?;
            let peeked = stream.peek(&mut [0]);
            stream.set_nonblocking(false)?;
            Ok::<bool, std::io::Error>(
                peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
            )
        };
        is_quiet(&self.stream).unwrap_or(false)
    }
}
