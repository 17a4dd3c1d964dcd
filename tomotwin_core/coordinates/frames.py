"""Every conversion of a position from one frame to another, in one place.

Positions are arrays (N, 3) of x, y, z; shapes are (z, y, x), as arrays have them. All in float64.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation


def rescaled(xyz: ArrayLike, from_voxel_size_A: float, to_voxel_size_A: float) -> NDArray[np.float64]:
    """Voxel positions at another voxel size. Voxel 0 is at the same place at every size, so this is a factor alone."""
    return np.asarray(xyz, np.float64) * (from_voxel_size_A / to_voxel_size_A)


def voxels_from_grid(grid_xyz: ArrayLike, stride: float = 1.0, offset_xyz: ArrayLike = 0.0) -> NDArray[np.float64]:
    """Voxel positions of points of a coarser grid whose point 0 lies at voxel `offset_xyz` and that steps by `stride`.

    Serves the embedding field (stride), a tile or a region of interest (offset), and both together.
    """
    return np.asarray(grid_xyz, np.float64) * stride + np.asarray(offset_xyz, np.float64)


def grid_from_voxels(xyz: ArrayLike, stride: float = 1.0, offset_xyz: ArrayLike = 0.0) -> NDArray[np.float64]:
    """The inverse of `voxels_from_grid`; round the result for the nearest grid point."""
    return (np.asarray(xyz, np.float64) - np.asarray(offset_xyz, np.float64)) / stride


def centred_A_from_voxels(xyz: ArrayLike, voxel_size_A: float, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """RELION 5's rlnCenteredCoordinateXAngst: Angstrom from the middle n / 2 of each axis, n / 2 not rounded."""
    return (np.asarray(xyz, np.float64) - _middle(shape)) * voxel_size_A


def voxels_from_centred_A(xyz_A: ArrayLike, voxel_size_A: float, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """The inverse of `centred_A_from_voxels`."""
    return np.asarray(xyz_A, np.float64) / voxel_size_A + _middle(shape)


def rotation_from_relion_angles(rot_tilt_psi_deg: ArrayLike) -> NDArray[np.float64]:
    """RELION's Euler angles (N, 3) in degrees as matrices R (N, 3, 3) with x_tomogram = R @ x_reference.

    RELION's matrix A of the angles rot, tilt, psi (Heymann, Chagoyen and Belnap, J. Struct. Biol. 151, 196, 2005) is
    Rz(-psi) Ry(-tilt) Rz(-rot) in right-handed rotations of vectors, and takes the reference into the particle.
    """
    angles = np.asarray(rot_tilt_psi_deg, np.float64).reshape(-1, 3)
    if len(angles) == 0:
        return np.empty((0, 3, 3))
    return np.asarray(Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix(), np.float64)


def relion_angles_from_rotation(rotation: ArrayLike) -> NDArray[np.float64]:
    """The inverse of `rotation_from_relion_angles`: (N, 3) rot, tilt, psi in degrees."""
    matrices = np.asarray(rotation, np.float64).reshape(-1, 3, 3)
    if len(matrices) == 0:
        return np.empty((0, 3))
    # Written out, because scipy warns about gimbal lock at tilt 0, which is a common and perfectly good orientation.
    inverse = matrices.transpose(0, 2, 1)  # Rz(rot) Ry(tilt) Rz(psi)
    tilt = np.arctan2(np.hypot(inverse[:, 0, 2], inverse[:, 1, 2]), inverse[:, 2, 2])
    locked = np.abs(np.sin(tilt)) < 1e-7  # only rot + psi (or rot - psi) is defined: all of it goes into psi
    sign = np.where(inverse[:, 2, 2] < 0, -1.0, 1.0)
    rot = np.where(locked, 0.0, np.arctan2(inverse[:, 1, 2], inverse[:, 0, 2]))
    psi = np.where(
        locked,
        np.arctan2(inverse[:, 1, 0], inverse[:, 1, 1]),
        np.arctan2(inverse[:, 2, 1], -inverse[:, 2, 0]),
    )
    tilt = np.where(locked, np.where(sign < 0, np.pi, 0.0), tilt)
    angles: NDArray[np.float64] = np.degrees(np.stack((rot, tilt, psi), axis=1))
    return angles


def _middle(shape: tuple[int, int, int]) -> NDArray[np.float64]:
    return np.asarray(shape[::-1], np.float64) / 2
