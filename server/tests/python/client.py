"""A client of hongbao-server with nothing but the stock `protobuf` package, as a stranger would write one.

Usage: client.py DESCRIPTORS HOST PORT TOKEN CAMPAIGN

DESCRIPTORS is a serialized FileDescriptorSet of hongbao/v1/client.proto, as `protoc --descriptor_set_out` writes it.
Prints one JSON object per line, one for each thing that happened.
"""

import json
import socket
import sys
import time

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, proto

PATIENCE_SECONDS = 30


def message_classes(path):
    """The two frames of the protocol, made from its description."""
    with open(path, "rb") as file:
        files = descriptor_pb2.FileDescriptorSet.FromString(file.read())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    find = lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName("hongbao.v1." + name))
    return find("ClientFrame"), find("ServerFrame")


class Client:
    """One connection. The framing is protobuf's own: a length, then the message."""

    next_id = 1

    def __init__(self, address, frames):
        self.request_class, self.event_class = frames
        self.socket = socket.create_connection(address, timeout=PATIENCE_SECONDS)
        self.output = self.socket.makefile("wb")
        self.input = self.socket.makefile("rb")
        self.pushes = []

    def close(self):
        self.socket.close()

    def read(self):
        frame = proto.parse_length_prefixed(self.event_class, self.input)
        assert frame is not None, "the server has closed the connection"
        return frame

    def ask(self, kind, **fields):
        """Sends a request and returns its answer; pushes that come before it are kept."""
        frame = self.request_class(request_id=Client.next_id)
        Client.next_id += 1
        request = getattr(frame, kind)
        request.SetInParent()
        json_format.ParseDict(fields, request)
        proto.serialize_length_prefixed(frame, self.output)
        self.output.flush()
        while True:
            answer = self.read()
            if answer.request_id == frame.request_id:
                return answer
            assert answer.request_id == 0, answer
            self.pushes.append(answer)

    def push(self, kind):
        """The next push of a kind; others are passed over."""
        while True:
            frame = self.pushes.pop(0) if self.pushes else self.read()
            if frame.WhichOneof("event") == kind:
                return frame


def tell(frame):
    """Prints what came, with every field, under the name of its kind."""
    fields = json_format.MessageToDict(frame, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    print(json.dumps(fields), flush=True)


def main(descriptors, host, port, token, campaign):
    address, frames = (host, int(port)), message_classes(descriptors)

    client = Client(address, frames)
    tell(client.ask("login", token=token))
    tell(client.ask("ping"))
    deadline = time.monotonic() + PATIENCE_SECONDS
    answer = client.ask("grab", campaign_id=int(campaign))
    while answer.WhichOneof("event") != "won" and time.monotonic() < deadline:
        time.sleep(0.01)
        answer = client.ask("grab", campaign_id=int(campaign))
    tell(answer)
    client.close()

    # The win was not acknowledged: the server tells of it again.
    client = Client(address, frames)
    tell(client.ask("login", token=token))
    reminder = client.push("reminder")
    tell(reminder)
    tell(client.push("announcement"))
    prizes = [{"campaign_id": win.campaign_id, "serial": str(win.serial)} for win in reminder.reminder.wins]
    tell(client.ask("acknowledge", prizes=prizes))
    tell(client.ask("login", token=token))
    client.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
