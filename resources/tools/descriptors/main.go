// Descriptors writes the FileDescriptorSet of Envoy's discovery.proto and all
// that it imports to standard output, imports first.
//
// The Go module of go-control-plane ships no .proto, but its generated code
// carries the descriptors: protoc reads them with --descriptor_set_in.
package main

import (
	"fmt"
	"os"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "descriptors:", err)
		os.Exit(1)
	}
}

func run() error {
	files := withImports(nil, make(map[string]bool), discovery.File_envoy_service_discovery_v3_discovery_proto)
	set := &descriptorpb.FileDescriptorSet{File: files}
	out, err := proto.MarshalOptions{Deterministic: true}.Marshal(set)
	if err != nil {
		return fmt.Errorf("encode the descriptor set: %w", err)
	}
	_, err = os.Stdout.Write(out)
	return err
}

// withImports appends file to files, after what it imports, unless it was seen.
func withImports(files []*descriptorpb.FileDescriptorProto, seen map[string]bool, file protoreflect.FileDescriptor) []*descriptorpb.FileDescriptorProto {
	if seen[file.Path()] {
		return files
	}
	seen[file.Path()] = true
	imports := file.Imports()
	for i := range imports.Len() {
		files = withImports(files, seen, imports.Get(i).FileDescriptor)
	}
	return append(files, protodesc.ToFileDescriptorProto(file))
}
