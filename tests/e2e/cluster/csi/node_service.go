package csi

import (
	"context"
	"errors"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// nodeService is what the kubelet calls. A volume is staged (its image mounted) once, and published (bind-mounted) to each Pod.
type nodeService struct {
	csi.UnimplementedNodeServer
	node  string
	store *imageStore
}

func (*nodeService) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	response := &csi.NodeGetCapabilitiesResponse{}
	for _, kind := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		// Without this the kubelet mounts no ReadWriteOncePod claim.
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		response.Capabilities = append(response.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: kind}},
		})
	}
	return response, nil
}

func (s *nodeService) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: s.node}, nil
}

func (s *nodeService) NodeStageVolume(_ context.Context, request *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	if request.GetVolumeCapability().GetBlock() != nil {
		return nil, status.Error(codes.InvalidArgument, Name+" has file systems only, no raw block volumes; use volumeMode: Filesystem")
	}
	if err := s.store.mount(request.GetVolumeId(), request.GetStagingTargetPath()); err != nil {
		return nil, failure("mounting", request.GetVolumeId(), err)
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

func (s *nodeService) NodeUnstageVolume(_ context.Context, request *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if err := unmount(request.GetStagingTargetPath()); err != nil {
		return nil, failure("unmounting", request.GetVolumeId(), err)
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (s *nodeService) NodePublishVolume(_ context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if err := bind(request.GetStagingTargetPath(), request.GetTargetPath(), request.GetReadonly()); err != nil {
		return nil, failure("giving to a Pod", request.GetVolumeId(), err)
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (*nodeService) NodeUnpublishVolume(_ context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := unmount(request.GetTargetPath()); err != nil {
		return nil, failure("taking from a Pod", request.GetVolumeId(), err)
	}
	if err := os.Remove(request.GetTargetPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, failure("taking from a Pod", request.GetVolumeId(), err)
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (*nodeService) NodeGetVolumeStats(_ context.Context, request *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	mounted, err := isMounted(request.GetVolumePath())
	if err != nil {
		return nil, failure("measuring", request.GetVolumeId(), err)
	}
	if !mounted {
		return nil, status.Errorf(codes.NotFound, "volume %s is not mounted at %s", request.GetVolumeId(), request.GetVolumePath())
	}
	var usage unix.Statfs_t
	if err := unix.Statfs(request.GetVolumePath(), &usage); err != nil {
		return nil, failure("measuring", request.GetVolumeId(), err)
	}
	block := uint64(usage.Bsize)
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{
			Unit: csi.VolumeUsage_BYTES, Total: int64(usage.Blocks * block), Available: int64(usage.Bavail * block),
			Used: int64((usage.Blocks - usage.Bfree) * block),
		},
		{
			Unit: csi.VolumeUsage_INODES, Total: int64(usage.Files), Available: int64(usage.Ffree),
			Used: int64(usage.Files - usage.Ffree),
		},
	}}, nil
}

func failure(doing, volume string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return status.Errorf(codes.NotFound, "%s volume %s: %v", doing, volume, err)
	}
	return status.Errorf(codes.Internal, "%s volume %s: %v", doing, volume, err)
}
