// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 The caddy-x402 Authors
//
// Licensed under the Apache License, Version 2.0; see the LICENSE file of this repository.

pragma solidity 0.8.37;

/// Many calls in one, for the local chain: an implementation of our own of what we use of the well-known
/// contract, whose place it takes at the canonical address.
contract Multicall3 {
    struct Call3 {
        address target;
        bool allowFailure;
        bytes callData;
    }

    struct Result {
        bool success;
        bytes returnData;
    }

    /// Makes the calls in their order. One that fails makes all fail, unless it says that it may.
    function aggregate3(Call3[] calldata calls) external payable returns (Result[] memory results) {
        results = new Result[](calls.length);
        for (uint256 i = 0; i < calls.length; i++) {
            Call3 calldata call = calls[i];
            (bool success, bytes memory returnData) = call.target.call(call.callData);
            require(success || call.allowFailure, "Multicall3: call failed");
            results[i] = Result(success, returnData);
        }
    }

    function getBlockNumber() external view returns (uint256) {
        return block.number;
    }

    function getCurrentBlockTimestamp() external view returns (uint256) {
        return block.timestamp;
    }

    function getEthBalance(address account) external view returns (uint256) {
        return account.balance;
    }
}
